"""The one model behind every dialect: types, ranges and the rules between fields."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from trading.order_entry import FieldError, OrderEntry

MARKET = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": "1", "idempotency_key": "key"}
LIMIT: dict[str, object] = {"order_type": "limit", "limit_price": "1"}
TRAILING: dict[str, object] = {"order_type": "trailing_stop_limit", "trail_amount": "0.01", "limit_offset": "0"}
CONDITION = {"symbol": "USDJPY", "watch": "ask", "direction": "at_or_above", "level": "151"}


def entry(**fields: object) -> OrderEntry:
    return OrderEntry.model_validate(MARKET | fields)


def told(**instructions: object) -> dict[str, object]:
    """Fields that tell how an order should be worked."""
    return {"execution_instructions": instructions}


def fault_of(**fields: object) -> dict[str, Any]:
    """The first fault of an order with `fields`: its place and its kind."""
    with pytest.raises(ValidationError) as caught:
        entry(**fields)
    return dict(caught.value.errors()[0])


def test_what_is_left_out() -> None:
    order = entry()

    assert (order.time_in_force, order.reduce_only, order.max_slippage) == ("gtc", False, None)
    assert order.position_size_check is True


def test_words_in_any_case() -> None:
    order = entry(symbol="eurusd", order_type="MARKET", side="Sell", time_in_force="IOC")

    assert (order.symbol, order.order_type, order.side, order.time_in_force) == ("EURUSD", "market", "sell", "ioc")


@pytest.mark.parametrize(
    ("given", "number"),
    [("0.1", "0.1"), (1, "1"), (Decimal("0.10"), "0.10"), (Decimal("1E+2"), "100"), ("000000000000000001", "1")],
)
def test_numbers_as_text_or_as_json(given: object, number: str) -> None:
    assert entry(quantity=given).quantity == Decimal(number)


@pytest.mark.parametrize(
    "bad",
    [
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "sNaN",
        "1e400",
        "1e2",
        "0x10",
        "1,5",
        "1_000",
        " 1",
        "1 ",
        "+1",
        "1.",
        ".5",
        "",
        "-",
        "١",  # an Arabic-Indic one
        "１",  # a full-width one
        "½",
        "1" * 19,
        "0." + "0" * 12 + "1",
        "-1",
        "0",
        "-0",
        "0.0",
        True,
        False,
        1.5,
        [],
        {},
        ["1"],
        {"value": 1},
        b"1",
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1E+400"),
        Decimal("1E-13"),
        Decimal("-0"),
        10**18,
        -1,
        0,
    ],
)
@pytest.mark.parametrize("field", ["quantity", "stop_loss", "take_profit"])
def test_what_is_no_positive_number(field: str, bad: object) -> None:
    assert fault_of(**{field: bad})["loc"] == (field,)


@pytest.mark.parametrize("bad", ["-0.1", "NaN", "abc", True])
def test_an_offset_is_no_less_than_nothing(bad: object) -> None:
    assert fault_of(order_type="trailing_stop_limit", trail_amount="1", limit_offset=bad)["loc"] == ("limit_offset",)


@pytest.mark.parametrize("bad", ["-0.1", "1.01", "NaN", True])
def test_a_variance_is_a_fraction(bad: object) -> None:
    fault = fault_of(order_type="limit", limit_price="1", display_quantity="1", display_variance=bad)
    assert fault["loc"] == ("display_variance",)


@pytest.mark.parametrize("bad", ["0", "-1", "100", "100.1", "NaN", True])
def test_a_percentage_lies_between_nothing_and_all(bad: object) -> None:
    assert fault_of(order_type="trailing_stop", trail_percent=bad)["loc"] == ("trail_percent",)


@pytest.mark.parametrize("bad", ["-0.1", "NaN", "abc", True])
def test_max_slippage_is_no_less_than_nothing(bad: object) -> None:
    assert fault_of(max_slippage=bad)["loc"] == ("max_slippage",)
    assert entry(max_slippage="0").max_slippage == 0


@pytest.mark.parametrize("bad", ["", "EUR USD", "EUR/USD", "EURUSD;--", "ЕURUSD", "ß", "A" * 21, None, 7, ["EURUSD"]])
def test_what_is_no_symbol(bad: object) -> None:
    assert fault_of(symbol=bad)["loc"] == ("symbol",)


@pytest.mark.parametrize("bad", ["", "k" * 256, "a key", "tab\t", "clé", "nul\x00", "line\n", 7, None, True, {}])
def test_what_is_no_key(bad: object) -> None:
    assert fault_of(idempotency_key=bad)["loc"] == ("idempotency_key",)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("side", "long"),
        ("side", ""),
        ("side", 1),
        ("order_type", "trailing"),
        ("order_type", {}),
        ("time_in_force", "forever"),
        ("reduce_only", "maybe"),
        ("reduce_only", "yes"),
        ("reduce_only", "true"),
        ("reduce_only", 1),
        ("reduce_only", 0),
        ("position_size_check", False),
        ("position_size_check", 1),
        ("position_size_check", "true"),
        ("execution_instructions", {"would_price_improve": "yes"}),
        ("execution_instructions", {"allow_partial_fills": 1}),
        ("account_id", "mine"),
        ("client_order_id", "k" * 129),
        ("strategy_id", ""),
        ("strategy_id", "s" * 129),
        ("metadata", []),
        ("metadata", {str(n): n for n in range(33)}),
        ("metadata", {"long": "x" * 1025}),
        ("metadata", {"n" * 129: 1}),
        ("parent_order_id", 5),
        ("expires_at", "2030-01-01T00:00:00"),
        ("expires_at", "2030-01-01"),
        ("expires_at", "2030-02-30T00:00:00Z"),
        ("expires_at", "2030-01-01T00:00:00+24:00"),
        ("expires_at", "0001-01-01T00:00:00+01:00"),
        ("expires_at", "1900000000"),
        ("expires_at", 1_900_000_000),
        ("expires_at", Decimal("1900000000.5")),
        ("expires_at", "٢٠٣٠-01-01T00:00:00Z"),
    ],
)
def test_what_a_field_cannot_hold(field: str, bad: object) -> None:
    assert fault_of(**{field: bad})["loc"][0] == field


@pytest.mark.parametrize("name", ["commission", "price", "user_id", "version", "execution_price", "request_hash"])
def test_a_field_that_is_not_asked_for(name: str) -> None:
    fault = fault_of(**{name: "1"})

    assert (fault["loc"], fault["type"]) == ((name,), "extra_forbidden")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limit_price": "1.1"}, "limit_price"),
        ({"stop_price": "1.1"}, "stop_price"),
        ({"order_type": "limit"}, "limit_price"),
        ({"order_type": "limit", "limit_price": "1", "stop_price": "1"}, "stop_price"),
        ({"order_type": "stop"}, "stop_price"),
        ({"order_type": "stop", "stop_price": "1", "limit_price": "1"}, "limit_price"),
        ({"order_type": "stop_limit", "limit_price": "1"}, "stop_price"),
        ({"time_in_force": "gtd"}, "time_in_force"),
        ({"time_in_force": "gtd", "expires_at": "2030-01-01T00:00:00Z"}, "time_in_force"),
        ({"time_in_force": "opg", "stop_loss": "1"}, "stop_loss"),
        ({"time_in_force": "cls", "take_profit": "1"}, "take_profit"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "time_in_force": "cls"}, "time_in_force"),
        (
            {"order_type": "limit", "limit_price": "1", "display_quantity": "1", "time_in_force": "cls"},
            "display_quantity",
        ),
        ({"order_type": "limit", "limit_price": "1", "post_only": True, "time_in_force": "opg"}, "post_only"),
        ({"order_type": "limit", "limit_price": "1", "time_in_force": "gtd"}, "expires_at"),
        ({"order_type": "stop", "stop_price": "1", "time_in_force": "ioc"}, "time_in_force"),
        ({"order_type": "market_if_touched"}, "stop_price"),
        ({"order_type": "market_if_touched", "stop_price": "1", "limit_price": "1"}, "limit_price"),
        ({"order_type": "limit_if_touched", "stop_price": "1"}, "limit_price"),
        ({"order_type": "stop", "stop_price": "1", "time_in_force": "opg"}, "time_in_force"),
        ({"order_type": "stop_limit", "stop_price": "1", "limit_price": "1", "time_in_force": "fok"}, "time_in_force"),
        ({"order_type": "limit", "limit_price": "1", "expires_at": "2030-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z"}, "expires_at"),
        ({"trail_amount": "1"}, "trail_amount"),
        ({"order_type": "limit", "limit_price": "1", "trail_percent": "1"}, "trail_percent"),
        ({"order_type": "trailing_stop"}, "trail_amount"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "trail_percent": "1"}, "trail_amount"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "stop_price": "1"}, "stop_price"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "limit_price": "1"}, "limit_price"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "limit_offset": "1"}, "limit_offset"),
        ({"order_type": "trailing_stop_limit", "trail_amount": "1"}, "limit_offset"),
        ({"order_type": "stop_limit", "limit_price": "1", "stop_price": "1", "limit_offset": "1"}, "limit_offset"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "stop_loss": "1"}, "stop_loss"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "take_profit": "1"}, "take_profit"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "time_in_force": "ioc"}, "time_in_force"),
        ({"conditions": [CONDITION], "time_in_force": "ioc"}, "time_in_force"),
        ({"conditions": [CONDITION], "time_in_force": "cls"}, "time_in_force"),
        ({"conditions": [CONDITION], "time_in_force": "gtd"}, "expires_at"),
        ({"conditions": [CONDITION], "stop_loss": "1"}, "stop_loss"),
        ({"conditions": [CONDITION], "order_type": "trailing_stop", "trail_amount": "1"}, "conditions"),
        ({"conditions": [CONDITION], "order_type": "limit", "limit_price": "1", "post_only": True}, "post_only"),
        ({"post_only": True}, "post_only"),
        ({"order_type": "stop", "stop_price": "1", "post_only": True}, "post_only"),
        ({"order_type": "limit", "limit_price": "1", "post_only": True, "time_in_force": "fok"}, "post_only"),
        ({"display_quantity": "1"}, "display_quantity"),
        ({"order_type": "stop", "stop_price": "1", "display_quantity": "1"}, "display_quantity"),
        (
            {"order_type": "limit", "limit_price": "1", "display_quantity": "1", "time_in_force": "ioc"},
            "display_quantity",
        ),
        ({"order_type": "limit", "limit_price": "1", "display_quantity": "1.01"}, "display_quantity"),
        ({"order_type": "limit", "limit_price": "1", "display_variance": "0.5"}, "display_variance"),
        (LIMIT | {"display_quantity": "0.1"} | told(display_size="0.2"), "execution_instructions.display_size"),
        (told(display_size="1"), "execution_instructions.display_size"),
        (LIMIT | told(allow_partial_fills=False), "execution_instructions.allow_partial_fills"),
        (LIMIT | {"time_in_force": "ioc"} | told(allow_partial_fills=False),
         "execution_instructions.allow_partial_fills"),
        (TRAILING | told(allow_partial_fills=False), "execution_instructions.allow_partial_fills"),
        ({"order_type": "limit", "limit_price": "1", "stop_loss": "1"}, "stop_loss"),
        ({"order_type": "limit", "limit_price": "1", "take_profit": "1"}, "take_profit"),
        ({"order_type": "limit", "limit_price": "1", "side": "sell", "stop_loss": "1"}, "stop_loss"),
        ({"order_type": "limit", "limit_price": "1", "side": "sell", "take_profit": "1.1"}, "take_profit"),
        ({"order_type": "stop", "stop_price": "1", "stop_loss": "1"}, "stop_loss"),
        ({"order_type": "stop", "stop_price": "1", "take_profit": "1"}, "take_profit"),
        ({"order_type": "stop", "stop_price": "1", "side": "sell", "stop_loss": "0.9"}, "stop_loss"),
        ({"order_type": "stop", "stop_price": "1", "side": "sell", "take_profit": "1"}, "take_profit"),
        # the limit is the price of a stop limit order
        ({"order_type": "stop_limit", "stop_price": "1", "limit_price": "1.1", "take_profit": "1.05"}, "take_profit"),
    ],
)  # fmt: skip
def test_fields_that_do_not_go_together(fields: dict[str, object], field: str) -> None:
    error = fault_of(**fields)["ctx"]["error"]

    assert isinstance(error, FieldError)
    assert error.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"order_type": "limit", "limit_price": "1", "stop_loss": "0.9", "take_profit": "1.1"},
        {"order_type": "limit", "limit_price": "1", "side": "sell", "stop_loss": "1.1", "take_profit": "0.9"},
        {"order_type": "stop_limit", "limit_price": "1", "stop_price": "1.1"},
        {"order_type": "stop", "stop_price": "1.1", "stop_loss": "1", "take_profit": "2"},
        {"order_type": "stop", "stop_price": "1.1", "side": "sell", "stop_loss": "2", "take_profit": "1"},
        {"order_type": "stop_limit", "stop_price": "1", "limit_price": "1.1", "stop_loss": "1.05"},
        {"order_type": "limit", "limit_price": "1", "display_quantity": "1", "display_variance": "1"},
        {"order_type": "limit", "limit_price": "1", "display_quantity": "0.1", "time_in_force": "day"},
        {"order_type": "limit", "limit_price": "1", "post_only": True},
        {"post_only": False},
        LIMIT | {"display_quantity": "0.1"} | told(display_size="0.10", would_price_improve=True),
        LIMIT | {"time_in_force": "fok"} | told(allow_partial_fills=False),
        LIMIT | told(allow_partial_fills=True),
        told(allow_partial_fills=False, urgency="high"),
        {"order_type": "trailing_stop", "trail_amount": "0.01"},
        {"order_type": "trailing_stop", "trail_percent": "99.9", "time_in_force": "day"},
        {"order_type": "trailing_stop_limit", "trail_amount": "0.01", "limit_offset": "0"},
        {"conditions": [CONDITION]},
        {"conditions": [CONDITION] * 4, "time_in_force": "gtd", "expires_at": "2030-01-01T00:00:00Z"},
        {"conditions": [CONDITION], "order_type": "limit", "limit_price": "1", "stop_loss": "0.9"},
        {"time_in_force": "opg"},
        {"time_in_force": "CLS"},
        {"order_type": "limit", "limit_price": "1", "time_in_force": "opg"},
        {"order_type": "limit", "limit_price": "1", "time_in_force": "cls", "stop_loss": "0.9"},
        {"time_in_force": "day"},
        {"time_in_force": "gtc"},
        {"time_in_force": "ioc"},
        {"time_in_force": "FOK"},
        {"order_type": "limit", "limit_price": "1", "time_in_force": "GTC"},
        {"reduce_only": True, "position_size_check": True},
    ],
)
def test_fields_that_go_together(fields: dict[str, object]) -> None:
    assert entry(**fields).quantity == 1


STOP: dict[str, object] = {"stop_price": "1"}
PRICES: dict[str, dict[str, object]] = {
    "market": {},
    "limit": {"limit_price": "1"},
    "stop": STOP,
    "stop_limit": STOP | {"limit_price": "1"},
    "market_if_touched": STOP,
    "limit_if_touched": STOP | {"limit_price": "1"},
    "trailing_stop": {"trail_percent": "1"},
    "trailing_stop_limit": {"trail_amount": "1", "limit_offset": "0"},
}
TIMES: dict[str, dict[str, object]] = {"gtd": {"expires_at": "2030-01-01T00:00:00Z"}}


@pytest.mark.parametrize("order_type", PRICES)
@pytest.mark.parametrize("time_in_force", ["day", "gtc", "gtd", "ioc", "fok", "opg", "cls"])
def test_each_type_takes_its_times_in_force(order_type: str, time_in_force: str) -> None:
    # given
    refused = {"market": {"gtd"}, "limit": set[str]()}.get(order_type, {"ioc", "fok", "opg", "cls"})
    fields = {"order_type": order_type, "time_in_force": time_in_force}
    fields |= PRICES[order_type] | TIMES.get(time_in_force, {})

    # when / then
    if time_in_force in refused:
        assert fault_of(**fields)["ctx"]["error"].field == "time_in_force"
    else:
        assert entry(**fields).waits is (order_type != "market" or time_in_force in ("opg", "cls"))


def test_only_a_market_order_with_conditions_waits_for_them_alone() -> None:
    assert entry(conditions=[CONDITION]).waits
    assert not entry().waits


def test_an_order_is_not_changed_after_it_was_read() -> None:
    with pytest.raises(ValidationError):
        entry().quantity = Decimal(2)  # pyright: ignore[reportAttributeAccessIssue]
