"""F16: limits nest. The database ends a statement before the function gives it up, and that before Lambda ends both."""

import re
from pathlib import Path
from typing import Any

import pytest

from local.gateway.template import load_template, merge
from tests.kit.servers import ScratchDatabase

TEMPLATE = load_template(Path(__file__).parents[2] / "template.yaml")
FUNCTIONS: dict[str, dict[str, Any]] = {
    name: merge(TEMPLATE["Globals"]["Function"], resource["Properties"])
    for name, resource in TEMPLATE["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
}
# They change nothing, and give up early what they would only show.
READERS = ("GetPriceFunction", "HealthFunction")


def role_of(function: dict[str, Any]) -> str:
    """The role that a function logs in as, by what its secret's parameter says of itself."""
    secret = function["Environment"]["Variables"]["DATABASE_SECRET"]["Ref"]
    found = re.search(r"URL of (function_\w+):", TEMPLATE["Parameters"][secret]["Description"])
    assert found is not None, secret
    return found[1]


def settings_of(database: ScratchDatabase, role: str) -> dict[str, int]:
    """The role's limits in milliseconds, as a session of its own has them."""
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "client_connection_check_interval",
    )
    with database.connect(role) as connection:
        rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(names),))
        found = {name: int(setting) for name, setting in rows}
    assert set(found) == set(names)
    return found


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "DATABASE_SECRET" in str(FUNCTIONS[name])])
def test_a_statement_ends_before_its_function_does(database: ScratchDatabase, name: str) -> None:
    function = FUNCTIONS[name]
    limits = settings_of(database, role_of(function))
    function_ms = function["Timeout"] * 1000
    client_ms = int(function["Environment"]["Variables"]["DATABASE_TIMEOUT_MS"])

    assert 0 < limits["lock_timeout"] < limits["statement_timeout"] < function_ms
    assert client_ms < function_ms
    # Nothing of a worker that was ended holds a lock for longer than a statement may take.
    assert 0 < limits["idle_in_transaction_session_timeout"] <= limits["statement_timeout"]
    assert 0 < limits["client_connection_check_interval"] <= 1000
    if name not in READERS:
        # So that the caller hears what the database said, and not that it was silent.
        assert limits["statement_timeout"] < client_ms
