"""A netting account as a plain model: fractions and a page of arithmetic, none of it the layer's or the database's."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

type Conversion = Callable[[Fraction], Fraction]

COMMISSION_FACTORS = {"bronze": "1", "silver": "0.9", "gold": "0.8", "platinum": "0.7"}


@dataclass(frozen=True)
class Contract:
    """What is traded; `forex` margin is in the base currency, any other in the quote currency."""

    forex: bool
    size: Decimal
    leverage: Decimal
    commission_per_lot: Decimal
    commission_min: Decimal
    commission_max: Decimal


@dataclass
class NettingModel:
    """One account with one symbol. `lots` is negative for a short position; amounts are in account currency."""

    contract: Contract
    tier: str
    balance: Fraction
    lots: Fraction = Fraction(0)
    entry: Fraction = Fraction(0)
    margin: Fraction = Fraction(0)
    realized: Fraction = Fraction(0)
    commission: Fraction = Fraction(0)

    def trade(self, lots: Decimal, price: Decimal, from_quote: Conversion, from_base: Conversion) -> None:
        """Buy `lots`, or sell them where they are negative, at `price`; the conversions lead to account currency."""
        traded, at = Fraction(lots), Fraction(price)
        closed = min(abs(traded), abs(self.lots)) if traded * self.lots < 0 else Fraction(0)
        if closed:
            self._close(closed, at, from_quote)
        opened = abs(traded) - closed
        if opened:
            self._open(opened if traded > 0 else -opened, at, from_quote, from_base)
        self._charge(abs(traded), from_quote)

    def _close(self, closed: Fraction, at: Fraction, from_quote: Conversion) -> None:
        direction = 1 if self.lots > 0 else -1
        gained = cents(from_quote((at - self.entry) * direction * closed * Fraction(self.contract.size)))
        self.realized += gained
        self.balance += gained
        left = abs(self.lots) - closed
        self.margin = cents(self.margin * left / abs(self.lots))
        self.lots = left * direction

    def _open(self, lots: Fraction, at: Fraction, from_quote: Conversion, from_base: Conversion) -> None:
        contract = self.contract
        self.entry = (self.entry * self.lots + at * lots) / (self.lots + lots)
        self.lots += lots
        units = abs(lots) * Fraction(contract.size)
        tied = from_base(units) if contract.forex else from_quote(units * at)
        self.margin += cents(tied / Fraction(contract.leverage))

    def _charge(self, lots: Fraction, from_quote: Conversion) -> None:
        contract = self.contract
        if not contract.commission_per_lot:
            return
        asked = Fraction(contract.commission_per_lot) * lots * Fraction(COMMISSION_FACTORS[self.tier])
        within = min(max(asked, Fraction(contract.commission_min)), Fraction(contract.commission_max))
        # What goes out is converted as a loss is.
        charged = -cents(from_quote(-within))
        self.commission += charged
        self.balance -= charged


def divided_by(bid: Decimal, ask: Decimal) -> Conversion:
    """From the quote currency of a pair to its base: what comes in buys at the ask, what goes out at the bid."""
    return lambda amount: amount / Fraction(ask if amount > 0 else bid)


def cents(amount: Fraction) -> Fraction:
    """To two places, halves away from zero."""
    whole = int(abs(amount) * 100 + Fraction(1, 2))
    return Fraction(whole if amount >= 0 else -whole, 100)
