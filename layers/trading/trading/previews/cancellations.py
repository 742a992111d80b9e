"""What canceling orders would end, what goes with them and what stays; nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trading.accounts import Account
from trading.conversion import NoRateError, Rates
from trading.errors import TradingError
from trading.instruments import Instrument
from trading.margin import required_margin
from trading.previews.facts import account_of, rates_of

type Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EndingOrder:
    """An order that works, and its `leaves` before and after the cancellation, in lots.

    `margin` is what its rest would tie up if it were filled at its own price, in account currency; None without a
    fresh rate. Nothing of it is tied up while it waits.
    """

    fact: Facts
    leaves: Decimal
    leaves_after: Decimal
    margin: Decimal | None


@dataclass(frozen=True, slots=True)
class CancelPreview:
    """What a cancellation would end: the orders `canceled` by it, and the `linked` ones, which end, shrink or stay.

    `left` of those that fit would work on, `in_flight` of them are on their way to a venue and stay; `working` orders
    count against the account's limit now.
    """

    account_id: str
    account: Account
    canceled: Sequence[EndingOrder]
    linked: Sequence[EndingOrder]
    left: int
    in_flight: int
    working: int

    @property
    def working_after(self) -> int:
        """How many orders count against the account's limit afterwards."""
        return self.working - sum(order.leaves_after == 0 for order in (*self.canceled, *self.linked))


def preview_cancellation(answer: Facts) -> CancelPreview:
    """The cancellation by the facts of preview_cancel or preview_cancel_all."""
    account = account_of(answer["account"])
    rates = rates_of(answer)

    def ending(fact: Facts) -> EndingOrder:
        after = Decimal(fact.get("leaves_after", 0))
        terms = answer["terms"].get(fact["symbol"])
        return EndingOrder(fact, Decimal(fact["leaves_quantity"]), after, _margin(fact, terms, account, rates))

    return CancelPreview(
        answer["account"]["id"],
        account,
        [ending(fact) for fact in answer["canceled"]],
        [ending(fact) for fact in answer["linked"]],
        answer["left"],
        answer["in_flight"],
        answer["working"],
    )


def _margin(fact: Facts, terms: Facts | None, account: Account, rates: Rates) -> Decimal | None:
    """None also of what is not traded now, and of what has no price at all."""
    if terms is None or fact["price"] is None:
        return None
    opens, price = Decimal(fact["opens"]), Decimal(fact["price"])
    try:
        return required_margin(account, Instrument.from_row(terms), opens, price, rates)
    except (NoRateError, TradingError):
        return None
