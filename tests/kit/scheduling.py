"""How a run's processes share its files."""

from xdist.scheduler import LoadFileScheduling

# The files of tests/e2e that start systems of their own.
OWN_SYSTEMS = {f"tests/e2e/test_{name}.py" for name in ("crashes", "lifecycle", "replay", "venues")}
SHARED_SYSTEM = "tests/e2e"


class SharedSystemScheduling(LoadFileScheduling):
    """A file a process, but the files that share a running system all in one: it is started once, not once a process.

    In the order in which they were collected: end-to-end tests early and unit tests last, so that no long file is left
    to the end.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        shared = file.startswith(f"{SHARED_SYSTEM}/") and file not in OWN_SYSTEMS
        return SHARED_SYSTEM if shared else file
