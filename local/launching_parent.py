"""Notices when the `make` that started us was told to stop and cannot pass it on.

GNU make hands SIGTERM to its recipe. SIGINT and SIGHUP sent to make alone it keeps: it waits for the recipe, which
knows nothing of them, for ever. And a make that is killed leaves its recipe behind.
"""

import os
import signal
from pathlib import Path

_MAKES = {"make", "gmake"}
_KEPT = (signal.SIGINT, signal.SIGHUP)


class LaunchingParent:
    """The process that started this one, watched only if it is make."""

    def __init__(self) -> None:
        self._pid = os.getppid()
        self._caught = self._caught_signals() if self._name() in _MAKES else None

    def gone(self) -> bool:
        """Whether make ended, or has a stop signal in hand and waits for us."""
        if self._caught is None:
            return False
        if os.getppid() != self._pid:
            return True
        # Inside its handler make has taken that handler away, so that a second signal kills it.
        return bool(self._caught & ~self._caught_signals())

    def _name(self) -> str:
        try:
            return Path(f"/proc/{self._pid}/comm").read_text().strip()
        except OSError:
            return ""

    def _caught_signals(self) -> int:
        """Which of the kept signals it has a handler for, as a bit set; none once it is gone."""
        try:
            lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        except OSError:
            return 0
        mask = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
        return mask & sum(1 << (number - 1) for number in _KEPT)
