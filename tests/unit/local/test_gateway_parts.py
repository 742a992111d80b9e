"""Settings, logs and schedule events."""

import json
from pathlib import Path

import pytest

from local.gateway.logs import BoundedLog
from local.gateway.schedules import schedule_event
from local.gateway.settings import load_settings
from local.gateway.stack import ScheduleSpec
from local.processes import StartError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("{", "is no JSON"),
        ('{"port": 1, "host": "0.0.0.0"}', "binds 127.0.0.1 only"),
        ('{"port": 1, "workers_max": 0}', "workers_max"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "gateway.json").write_text(content)

    with pytest.raises(StartError, match=said):
        load_settings(tmp_path)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "gateway.json").write_text('{"port": 1}')

    assert load_settings(tmp_path).port == 1
    assert load_settings(tmp_path, port=0).port == 0


def test_a_log_is_cut_when_it_is_too_long_and_writers_go_on(tmp_path: Path) -> None:
    # given a log that a worker keeps open
    log = BoundedLog(tmp_path / "f.log", bytes_max=10)
    with log.path.open("a") as worker:
        worker.write("0123456789")
        worker.flush()
        log.trim()
        assert log.path.read_text() == "0123456789"

        # when it passes its limit
        worker.write("x")
        worker.flush()
        log.trim()
        worker.write("after")

    # then what was there is in .1 and the rest in the file
    assert (tmp_path / "f.log.1").read_text() == "0123456789x"
    assert log.path.read_text() == "after"
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_a_schedule_without_input_sends_the_standard_event() -> None:
    event = json.loads(schedule_event(ScheduleSpec("Name", "F", 60, None)))

    assert event["detail-type"] == "Scheduled Event"
    assert event["resources"] == ["arn:aws:scheduler:us-east-1:000000000000:schedule/default/Name"]


def test_a_schedules_input_is_filled_in() -> None:
    text = schedule_event(ScheduleSpec("Name", "F", 60, '{"a": "<aws.scheduler.attempt-number>"}'))

    assert text == '{"a": "1"}'
