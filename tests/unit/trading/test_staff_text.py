"""What staff write is shown on terminals: it holds nothing that they would obey."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from trading import account_requests, alert_requests, intervention_requests, kill_switch_requests

MODULES = (account_requests, alert_requests, intervention_requests, kill_switch_requests)
MODELS = sorted(
    {
        (each, field)
        for module in MODULES
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseModel)
        for field in ("reason", "note")
        if field in each.model_fields
    },
    key=str,
)


@pytest.mark.parametrize(("model", "field"), MODELS)
def test_control_characters_are_refused_in_every_request_of_staff(model: type[BaseModel], field: str) -> None:
    def faults(text: str) -> list[Any]:
        try:
            model.model_validate({field: text})
        except ValidationError as error:
            return [fault for fault in error.errors() if fault["loc"] == (field,)]
        return []

    controls = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"]
    assert [text for text in controls if not faults(f"seen{text}here")] == []
    assert faults("seen, and\n\tdone: naïve façade 影") == []
    assert all(faults(blank) for blank in ("", " ", "\n\t "))


def test_there_are_such_requests() -> None:
    assert len(MODELS) >= 10
