"""Orders for other venues: instruments that go there, and a router's store on a market."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from tests.kit.builders import User, order_request
from tests.kit.orders import Market, Outcome
from tests.kit.servers import ScratchDatabase
from trading.accounts import round_money
from trading.brokers.protocol import VenueFill
from trading.previews.orders import Preview
from trading.store.database import Database
from trading.store.venues import OrderId, RoutedOrder, VenueStore

LEASE_MS = 20_000
VENUE = "mock"
STOCK = "TEST_STOCK"
PAIR = "TEST_PAIR"


def make_venue_instrument(
    connection: psycopg.Connection[Any], symbol: str, *, like: str = "AAPL", venue: str = VENUE, **columns: object
) -> None:
    """An instrument `like` another under a name of its own, executed at `venue`; `connection` is the owner's."""
    connection.execute(
        "INSERT INTO instruments SELECT (jsonb_populate_record(i, %s)).* FROM instruments AS i WHERE i.symbol = %s",
        (Jsonb({"symbol": symbol, "venue": venue} | columns), like),
    )


@dataclass(frozen=True)
class VenueWorld:
    """A market with a stock (149.98 / 150.00, lots of 1) and a pair (1.1000 / 1.1002) that go to the mock venue."""

    market: Market
    router: Database
    store: VenueStore

    @classmethod
    @contextmanager
    def opened(cls, database: ScratchDatabase) -> Iterator[Self]:
        """The world on `database`."""
        with Market.opened(database) as market, cls.joined(market) as world:
            yield world

    @classmethod
    @contextmanager
    def joined(cls, market: Market) -> Iterator[Self]:
        """The world on a market that is there."""
        make_venue_instrument(market.owner, STOCK)
        make_venue_instrument(market.owner, PAIR, like="EURUSD")
        market.quote(STOCK, "149.98", "150.00")
        market.quote(PAIR, "1.1000", "1.1002")
        router = Database(lambda: market.database.url_for("function_router"))
        try:
            yield cls(market, router, VenueStore(router, uuid4(), lease_ms=LEASE_MS))
        finally:
            router.close()

    def another_store(self, router: Database | None = None) -> VenueStore:
        """The store of another copy of the router, on the same connection unless given one."""
        return VenueStore(router or self.router, uuid4(), lease_ms=LEASE_MS)

    def accept(self, user: User, symbol: str = STOCK, **overrides: object) -> Outcome:
        """An order of `user` for ten lots, sent as the function sends it."""
        request = order_request(user, **({"symbol": symbol, "quantity": "10"} | overrides))
        return self.send(request)

    def send(self, request: dict[str, object]) -> Outcome:
        """Call accept_order with `request`."""
        row = self.market.trader.execute(
            "SELECT (a ->> 'replayed')::boolean, (a -> 'answer')::text FROM accept_order(%s) AS a", (Jsonb(request),)
        ).fetchone()
        assert row is not None
        return Outcome(row[0], row[1])

    def sent(self, user: User, **overrides: Any) -> RoutedOrder:
        """An accepted order under the store's lease."""
        accepted = self.accept(user, **overrides)
        assert accepted["outcome"] == "pending_new", accepted.text
        return self.leased(user, accepted["order_id"])

    def leased(self, user: User, order_id: str | UUID) -> RoutedOrder:
        """An order on its way under the store's lease."""
        (routed,) = self.store.claim([OrderId(user.user_id, UUID(str(order_id)))], limit=1)
        return routed

    def fill(self, routed: RoutedOrder, quantity: str, price: str, trade_id: str | None = None) -> None:
        """Book a trade of the order."""
        self.store.book_fill(routed, "V1", fill_of(quantity, price, trade_id), 0)

    def order(self, routed: RoutedOrder) -> dict[str, Any]:
        """The order's row."""
        user = User(routed.id.user_id, routed.account_id, "")
        (row,) = [row for row in self.market.rows("orders", user) if row["id"] == routed.id.order_id]
        return row

    def route(self, routed: RoutedOrder) -> dict[str, Any]:
        """The route's row."""
        user = User(routed.id.user_id, routed.account_id, "")
        (row,) = [row for row in self.market.rows("venue_routes", user) if row["order_id"] == routed.id.order_id]
        return row

    def audit(self, routed: RoutedOrder) -> list[tuple[Any, ...]]:
        """(action, status, error_code, retry_attempt) of each step, in order."""
        return self.market.execute(
            "SELECT action, status, details ->> 'error_code', retry_attempt FROM order_audit_log "
            "WHERE user_id = %s AND order_id = %s ORDER BY version",
            (routed.id.user_id, routed.id.order_id),
        )

    def events(self, user: User) -> list[str]:
        """The types of the user's events of orders, in order."""
        found = self.market.execute(
            "SELECT event_type FROM events WHERE user_id = %s AND event_type LIKE 'order.%%' ORDER BY sequence",
            (user.user_id,),
        )
        return [name for (name,) in found]

    def reserved(self, user: User) -> Decimal:
        """What the account has reserved for orders in flight."""
        return self.market.account(user)["margin_reserved"]


def required_by(preview: Preview) -> Decimal:
    """What an order for a venue has to find free, and reserves."""
    cost = preview.cost
    needed = cost.margin - cost.hedged_margin_credit + cost.commission - cost.opening_pnl
    return max(Decimal(0), round_money(needed, preview.facts.account.currency))


def fill_of(quantity: str, price: str, trade_id: str | None = None) -> VenueFill:
    """A trade; with a name of its own unless given one."""
    return VenueFill(trade_id or f"T-{uuid4()}", Decimal(quantity), Decimal(price), datetime.now(UTC))
