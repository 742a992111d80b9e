"""Facts of others to compare with, where they lie beside the project."""

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[3] / "shared"
REFERENCE = SHARED / "reference"
RECORDED = SHARED / "data"


def reference(name: str) -> Any:
    """The content of ../shared/reference/`name`; the test is skipped, saying so, where it is not."""
    path = REFERENCE / name
    if not path.exists():
        pytest.skip(f"{path} is not there to compare with")
    return json.loads(path.read_text(), parse_float=Decimal)


def recorded(name: str) -> list[dict[str, str]]:
    """The rows of ../shared/data/`name`; the test is skipped, saying so, where it is not."""
    path = RECORDED / name
    if not path.exists():
        pytest.skip(f"{path} is not there to be replayed")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def worked_case(case_id: str) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
    """The numbers that go into a worked case, and those that come out."""
    (case,) = [case for case in reference("worked_cases.json") if case["id"] == case_id]
    return _numbers(case["inputs"]), _numbers(case["expect"])


def _numbers(values: dict[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in values.items() if value.lstrip("-").replace(".", "").isdigit()}
