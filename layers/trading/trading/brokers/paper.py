"""The paper venue: fills every order whole and at once, at the present quote, by the formulas of this house."""

from datetime import datetime
from decimal import Decimal
from uuid import NAMESPACE_OID, uuid5

from trading.brokers.book import Decision
from trading.brokers.protocol import VenueFill, VenueOrder, VenueUnavailableError
from trading.brokers.simulated import SimulatedBroker
from trading.pricing import FillPrice, fill_price


class PaperBroker(SimulatedBroker):
    """Slippage is drawn by venue and client id, so that an order fills at one price however often it is sent."""

    def decide(self, order: VenueOrder, now: datetime) -> Decision:
        """Filled, or refused where the price would be worse than the order wants.

        Raises VenueUnavailableError without a fresh quote: then nothing is decided.
        """
        market = self._markets(order.symbol)
        if market is None:
            raise VenueUnavailableError(f"{self.name} has no fresh price of {order.symbol}", sent=False)
        seed = f"{self.name}:{order.client_order_id}"
        found = fill_price(
            market.instrument, market.price, order.side, order.quantity, seed=seed, after_hours=market.after_hours
        )
        name = uuid5(NAMESPACE_OID, seed)
        reason = _worse_than_wanted(order, found)
        fills = () if reason else (VenueFill(f"PAPER-{name}-1", order.quantity, found.price, now),)
        return Decision(
            order,
            f"PAPER-{name}",
            now,
            fills,
            market.instrument.quote_currency,
            market.instrument.contract_size,
            reason,
        )


def _worse_than_wanted(order: VenueOrder, found: FillPrice) -> str | None:
    worst: Decimal | None = order.worst_price
    if worst is None or (found.price <= worst if order.side == "buy" else found.price >= worst):
        return None
    return f"The price is {found.price}; the order takes {worst} at worst."
