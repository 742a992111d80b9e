"""Prices, for display."""

from collections.abc import Mapping

from tools.openapi.forms import DECIMAL, TEXT, TIMESTAMP, Schema, closed, list_of, ref
from tools.openapi.operation import Answer, Operation, Parameter
from trading.errors import ErrorCode
from trading.order_entry import SYMBOL_PATTERN
from trading.symbols import SYMBOLS_MAX

# Spaces around a symbol are taken away, small letters are taken for capitals.
SYMBOL: Schema = {"type": "string", "pattern": SYMBOL_PATTERN.replace("A-Z", "A-Za-z")}
SYMBOLS: Schema = {"type": "array", "items": SYMBOL, "minItems": 1, "maxItems": SYMBOLS_MAX}
PRICE = closed(
    {
        "symbol": TEXT,
        "bid": DECIMAL,
        "ask": DECIMAL,
        "mid": DECIMAL,
        "spread": DECIMAL,
        "time": TIMESTAMP,
        "source": TEXT,
        "stale": {"type": "boolean", "description": "Older than the instrument allows for trading."},
    }
)
SCHEMAS: Mapping[str, Schema] = {
    "Price": PRICE,
    "Prices": closed(
        {
            "prices": list_of(ref("Price")),
            "unavailable": {**list_of(TEXT), "description": "Known symbols that never had a quote."},
        }
    ),
    "StockPriceRequest": {
        "type": "object",
        "properties": {
            "symbol": SYMBOL,
            "symbols": {"anyOf": [SYMBOLS, {"type": "string", "description": "Symbols with commas between them."}]},
        },
        "oneOf": [{"required": ["symbol"]}, {"required": ["symbols"]}],
    },
}
PRICE_EXAMPLE = {
    "symbol": "EURUSD",
    "bid": "1.15963",
    "ask": "1.15971",
    "mid": "1.15967",
    "spread": "0.00008",
    "time": "2026-11-21T04:28:43.127Z",
    "source": "simulated",
    "stale": False,
}
PRICES_EXAMPLE = {"prices": [PRICE_EXAMPLE], "unavailable": []}

ONE_OR_SEVERAL = (
    Parameter("symbol", SYMBOL, "One symbol. Either this or symbols."),
    Parameter("symbols", SYMBOLS, f"Up to {SYMBOLS_MAX} symbols with commas between them."),
)
ERRORS = frozenset({ErrorCode.UNKNOWN_SYMBOL, ErrorCode.MARKET_DATA_UNAVAILABLE})


def _one_or_several(description: str) -> Answer:
    return Answer(description, {"anyOf": [ref("Price"), ref("Prices")]}, PRICE_EXAMPLE, ("X-Cache",))


OPERATIONS = (
    Operation(
        route="GET /functions/v1/get-stock-price",
        operation_id="getStockPrice",
        tag="prices",
        summary="Read the newest price of one symbol, or of several",
        parameters=ONE_OR_SEVERAL,
        errors=ERRORS,
        answers={200: _one_or_several("The price of `symbol`, or the prices of `symbols`.")},
    ),
    Operation(
        route="POST /functions/v1/get-stock-price",
        operation_id="askForStockPrice",
        tag="prices",
        summary="The same, named in the body; it changes nothing",
        body=ref("StockPriceRequest"),
        body_example={"symbol": "EURUSD"},
        errors=ERRORS,
        answers={200: _one_or_several("The price of `symbol`, or the prices of `symbols`.")},
    ),
    Operation(
        route="GET /api/v1/prices",
        operation_id="listPrices",
        tag="prices",
        summary="Read the newest prices of several symbols",
        parameters=(
            Parameter("symbols", SYMBOLS, f"Up to {SYMBOLS_MAX} symbols with commas between them.", required=True),
        ),
        errors=ERRORS,
        answers={200: Answer("Their prices, in that order.", ref("Prices"), PRICES_EXAMPLE, ("X-Cache",))},
    ),
)
