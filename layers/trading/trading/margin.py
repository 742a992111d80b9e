"""The margin that a position ties up, and what an order must find free: the formulas of `order_margin`.

Booked figures are computed in SQL; these serve previews and messages, and a property test holds the two equal.
"""

from decimal import Decimal, localcontext

from trading.accounts import Account, round_money
from trading.conversion import Rates
from trading.instruments import Instrument
from trading.pricing import EXACT


def effective_leverage(account: Account, instrument: Instrument) -> Decimal:
    """The smallest of the account's leverage, the instrument's and its cap; 1 for a cash account."""
    if account.kind == "cash":
        return Decimal(1)
    caps = () if instrument.leverage_cap is None else (instrument.leverage_cap,)
    return min(account.leverage, instrument.leverage, *caps)


def required_margin(
    account: Account, instrument: Instrument, quantity: Decimal, open_price: Decimal, rates: Rates
) -> Decimal:
    """The margin of `quantity` lots opened at `open_price`, in account currency, rounded once.

    Forex: lots x contract size / leverage in the base currency, converted base -> account (no rate when they are
    equal, the open price itself when account = quote). Others: lots x contract size x open price / leverage,
    converted quote -> account. Raises NoRateError.
    """
    with localcontext(EXACT):
        units = quantity * instrument.contract_size
        size = _in_account_currency(account, instrument, units, open_price, rates)
        return round_money(size / effective_leverage(account, instrument), account.currency)


def _in_account_currency(
    account: Account, instrument: Instrument, units: Decimal, open_price: Decimal, rates: Rates
) -> Decimal:
    """The size of a position, as margin counts it."""
    forex = instrument.asset_class == "forex"
    if forex and instrument.base_currency == account.currency:
        return units
    if instrument.quote_currency == account.currency:
        return units * open_price
    if forex:
        return rates.convert(units, instrument.base_currency, account.currency)
    return rates.convert(units * open_price, instrument.quote_currency, account.currency)
