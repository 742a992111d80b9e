"""GET and POST /functions/v1/get-stock-price, GET /api/v1/prices: bid and ask of instruments, for display."""

from datetime import UTC, datetime

from trading.cache import cache
from trading.edge.envelope import timestamp
from trading.edge.gate import admit
from trading.edge.http import Request, Response, http_handler
from trading.errors import validation_failed
from trading.prices import Price, Prices, current_prices
from trading.store.connection import database
from trading.symbols import read_symbols

ROUTE_GROUP = "prices"


def get_prices(request: Request) -> Response:
    """Prices of the symbols in the query."""
    admit(request, route_group=ROUTE_GROUP, state_changing=False, permission=None)
    return _listed(read_symbols(request.query.get("symbols"), "symbols"))


def get_stock_price(request: Request) -> Response:
    """The price of one `symbol`, or prices of several `symbols`, named in the query or the body."""
    admit(request, route_group=ROUTE_GROUP, state_changing=False, permission=None)
    named = request.query if request.method == "GET" else request.json()
    match "symbol" in named, "symbols" in named:
        case True, False:
            return _single(named["symbol"])
        case False, True:
            return _listed(read_symbols(named["symbols"], "symbols"))
        case _:
            raise validation_failed(
                "symbol", None, "either symbol or symbols", "Name one symbol, or several as symbols, and not both."
            )


def _single(symbol: object) -> Response:
    symbols = read_symbols([symbol], "symbol")
    found = _found(symbols)
    return Response(body=_price(found.prices[0]), headers=_headers(found))


def _listed(symbols: list[str]) -> Response:
    found = _found(symbols)
    body = {"prices": [_price(price) for price in found.prices], "unavailable": found.unavailable}
    return Response(body=body, headers=_headers(found))


def _found(symbols: list[str]) -> Prices:
    return current_prices(symbols, datetime.now(UTC), cache=cache(), database=database())


def _headers(found: Prices) -> dict[str, str]:
    return {"X-Cache": found.status}


def _price(price: Price) -> dict[str, object]:
    quote = price.quote
    return {
        "symbol": quote.symbol,
        "bid": format(quote.bid, "f"),
        "ask": format(quote.ask, "f"),
        "mid": format((quote.bid + quote.ask) / 2, "f"),
        "spread": format(quote.ask - quote.bid, "f"),
        "time": timestamp(quote.time),
        "source": quote.source,
        "stale": price.stale,
    }


handler = http_handler(
    {
        "GET /functions/v1/get-stock-price": get_stock_price,
        "POST /functions/v1/get-stock-price": get_stock_price,
        "GET /api/v1/prices": get_prices,
    }
)
