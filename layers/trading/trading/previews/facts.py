"""What previews are made of: the database's facts in the domain's words, and amounts that several of them show."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from trading.accounts import Account, Worth, round_money
from trading.conversion import NoRateError, Rates
from trading.errors import ErrorCode, TradingError
from trading.instruments import Instrument
from trading.positions import Position, realized_pnl
from trading.pricing import MarketPrice, commission

RETRY_SECONDS = 1


class FreshQuotes(Mapping[str, MarketPrice]):
    """Quotes by symbol that refuse to be read while they are stale, as conversions in the database do."""

    def __init__(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        self._rows = rows

    def __getitem__(self, symbol: str) -> MarketPrice:
        row = self._rows[symbol]
        if not row["fresh"]:
            raise no_fresh_price(symbol)
        return market_price_of(row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def account_of(fact: Mapping[str, Any]) -> Account:
    """The terms of the account among facts."""
    return Account(fact["currency"], fact["kind"], Decimal(fact["leverage"]))


def worth_of(worth: Mapping[str, Any]) -> Worth | None:
    """The worth among facts; None while something held has no quote."""
    if worth["unrealized_pnl"] is None:
        return None
    return Worth(*(Decimal(worth[name]) for name in ("balance", "unrealized_pnl", "margin_used")))


def position_of(fact: Mapping[str, Any]) -> Position:
    """A position among facts."""
    return Position(fact["side"], *(Decimal(fact[name]) for name in ("quantity", "entry_price", "margin_used")))


def rates_of(answer: Mapping[str, Any]) -> Rates:
    """The rates among facts; one that is stale is MARKET_DATA_UNAVAILABLE when it is asked for."""
    return Rates(FreshQuotes({quote["symbol"]: quote for quote in answer["quotes"]}))


def no_fresh_price(symbol: str) -> TradingError:
    """MARKET_DATA_UNAVAILABLE for want of a fresh quote of `symbol`."""
    return TradingError(
        ErrorCode.MARKET_DATA_UNAVAILABLE,
        f"There is no fresh price of {symbol} now. Send the same request again shortly.",
        {"field": "symbol", "value": symbol, "constraint": "a fresh quote"},
        retry_after=RETRY_SECONDS,
    )


def market_price_of(row: Mapping[str, Any]) -> MarketPrice:
    """The quote in a row of facts."""
    return MarketPrice(*(Decimal(row[name]) for name in ("bid", "ask", "volatility")))


def refusal_of(found: Mapping[str, Any] | None) -> TradingError | None:
    """The refusal among facts, if there is one."""
    if found is None:
        return None
    return TradingError(ErrorCode(found["code"]), found["message"], found["details"])


def charged_commission(
    instrument: Instrument, quantity: Decimal, tier: str, account_currency: str, rates: Rates
) -> Decimal:
    """In account currency, rounded once; converted as what it is, an amount that goes out."""
    due = commission(instrument, quantity, tier)
    return -round_money(rates.convert(-due, instrument.quote_currency, account_currency), account_currency)


def realized_if_known(
    position: Position, price: Decimal, instrument: Instrument, account_currency: str, rates: Rates
) -> Decimal | None:
    """What closing all of the position at `price` books before commission; None without a fresh rate."""
    try:
        return realized_pnl(position, position.quantity, price, instrument, account_currency, rates)
    except (NoRateError, TradingError):
        return None
