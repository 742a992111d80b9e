"""Files that share a running system run in one process, each other file in whichever is free."""

from pathlib import Path

from tests.kit.scheduling import OWN_SYSTEMS, SHARED_SYSTEM, SharedSystemScheduling

ROOT = Path(__file__).parents[3]


def scope(nodeid: str) -> str:
    return SharedSystemScheduling._split_scope(SharedSystemScheduling.__new__(SharedSystemScheduling), nodeid)


def test_the_files_that_share_a_system_are_one_scope() -> None:
    assert scope("tests/e2e/test_pushes.py::test_a") == scope("tests/e2e/test_races.py::TestB::test_b") == SHARED_SYSTEM
    assert scope("tests/e2e/test_crashes.py::test_a") == "tests/e2e/test_crashes.py"
    assert scope("tests/unit/trading/test_risk.py::TestA::test_b") == "tests/unit/trading/test_risk.py"


def test_each_file_that_starts_a_system_is_named() -> None:
    files = (ROOT / SHARED_SYSTEM).glob("test_*.py")
    assert {str(file.relative_to(ROOT)) for file in files if "LocalSystem(" in file.read_text()} == OWN_SYSTEMS
