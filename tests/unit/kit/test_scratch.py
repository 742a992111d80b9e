"""Folders of a run: in memory where there is room, gone when it is over, and taken away where it was killed."""

import tempfile
from pathlib import Path

import pytest

from tests.kit import scratch
from tests.kit.scratch import LOCK, PREFIX, scratch_folder


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that stands for memory and has all the room that is needed."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(scratch, "MEMORY", folder)
    monkeypatch.setattr(scratch, "ROOM_BYTES_MIN", 0)
    return folder


def test_a_folder_lies_in_memory_until_its_run_is_over(memory: Path) -> None:
    with scratch_folder() as folder:
        (folder / "data").mkdir()
        assert list(memory.iterdir()) == [folder]
        assert folder.stat().st_mode & 0o777 == 0o711
    assert list(memory.iterdir()) == []


def test_without_room_it_lies_where_temporary_files_do(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "ROOM_BYTES_MIN", 2**63)
    with scratch_folder() as folder:
        assert folder.parent == Path(tempfile.gettempdir())
        assert list(memory.iterdir()) == []


def test_what_a_killed_run_left_is_taken_away_and_nothing_else(memory: Path) -> None:
    # given what a killed run left, what another run uses, and what is none of ours
    left = memory / f"{PREFIX}left"
    left.mkdir()
    (left / LOCK).touch()
    (memory / f"{PREFIX}strange").mkdir()
    (memory / "another").mkdir()
    with scratch_folder() as used:
        # when a run begins
        with scratch_folder():
            # then the first alone is gone
            assert not left.exists()
            assert used.exists()
        assert {path.name for path in memory.iterdir()} == {f"{PREFIX}strange", "another", used.name}
