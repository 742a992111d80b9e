"""What WebSocket clients may say."""

import json
from typing import Any
from uuid import UUID

import pytest

from trading.errors import ErrorCode, TradingError
from trading.messages import (
    MESSAGE_BYTES_MAX,
    SYMBOLS_MAX,
    Subscribe,
    Unsubscribe,
    parse_message,
    subscribe_of,
    token_of,
    unsubscribe_of,
)


def test_a_whole_subscription() -> None:
    # given
    message = {
        "type": "subscribe",
        "channels": ["orders", "market_data", "orders"],
        "symbols": ["EURUSD"],
        "since": 41,
        "account_id": "00000000-0000-0000-0000-000000000001",
    }

    # when / then
    assert subscribe_of(message) == Subscribe(("orders", "market_data"), ("EURUSD",), 41, UUID(int=1))


def test_the_least_subscription() -> None:
    assert subscribe_of({"channels": ["orders"]}) == Subscribe(("orders",), (), None, None)


def test_an_unsubscription_may_name_nothing() -> None:
    assert unsubscribe_of({"type": "unsubscribe"}) == Unsubscribe((), ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", None),
        ("channels", []),
        ("channels", "orders"),
        ("channels", ["nonsense"]),
        ("channels", [1]),
        ("symbols", "EURUSD"),
        ("symbols", ["eurusd"]),
        ("symbols", ["EUR USD; --"]),
        ("symbols", [f"S{number}" for number in range(SYMBOLS_MAX + 1)]),
        ("since", -1),
        ("since", True),
        ("since", "7"),
        ("since", 1.5),
        ("since", 2**63),
        ("account_id", 7),
        ("account_id", "mine"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    # when
    with pytest.raises(TradingError) as refused:
        subscribe_of({"channels": ["orders"]} | {field: value})

    # then
    assert refused.value.code is ErrorCode.VALIDATION_FAILED
    assert refused.value.details["field"] == field


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        "{",
        "[]",
        "7",
        '"auth"',
        "null",
        "[" * 30_000,
        "1" * 5000,
        "\ud800",
        '{"type": "ping", "padding": "\ud800"}',
        '{"type": "\\ud800"}',
        '{"type": "ping", "type": "auth"}',
        '{"type": "ping", "at": NaN}',
        '{"type": "ping", "at": ' + "[" * 3000 + "]" * 3000 + "}",
    ],
)
def test_what_is_no_message_is_refused_with_the_way_to_do_it(body: str | None) -> None:
    with pytest.raises(TradingError, match=r'\{"type":"auth"') as refused:
        parse_message(body)
    assert refused.value.code is ErrorCode.VALIDATION_FAILED


def test_a_huge_message_is_refused() -> None:
    fitting = json.dumps({"type": "ping", "padding": ""})
    fitting = fitting.replace('""', f'"{"x" * (MESSAGE_BYTES_MAX - len(fitting))}"')
    assert parse_message(fitting)["type"] == "ping"
    with pytest.raises(TradingError) as refused:
        parse_message(fitting + " ")
    assert refused.value.code is ErrorCode.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize("token", [None, "", 7, {"a": 1}, "secret" * 2000])
def test_a_wrong_token_is_never_repeated(token: Any) -> None:
    with pytest.raises(TradingError) as refused:
        token_of({"type": "auth", "token": token})
    assert "secret" not in f"{refused.value.message}{refused.value.details}"
