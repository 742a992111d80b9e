"""cancel_order: working orders end once, under one key or many; whatever else happens to them at the same moment."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import (
    Market,
    deadlocks,
    details_of,
    keyed_request,
    raises_sqlstate,
    resting_request,
    send,
    told_at_once,
)


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; its books must hold after all tests."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.fixture
def trader(market: Market) -> User:
    return market.user()


def force_status(market: Market, order_id: str, status: str, **columns: object) -> None:
    """Put an order into a state that no procedure brings it to, within the test's transaction."""
    sets = ", ".join(f"{name} = %({name})s" for name in columns)
    market.execute(
        f"UPDATE orders SET status = %(status)s, leaves_quantity = 0{', ' if sets else ''}{sets} WHERE id = %(id)s",
        {"status": status, "id": order_id, **columns},
    )


class TestCancel:
    def test_the_order_ends(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        canceled = market.cancel(trader, placed["order_id"])

        (order,) = market.rows("orders", trader)
        assert (order["status"], order["leaves_quantity"], order["version"]) == ("canceled", 0, 2)
        assert order["updated_at"] > order["created_at"]
        told = canceled.answer
        assert (told["outcome"], told["status"], told["order_id"]) == ("canceled", "canceled", placed["order_id"])
        assert told["sequence"] == placed["sequence"] + 1
        assert datetime.fromisoformat(told["created_at"]).astimezone(UTC) == order["created_at"]
        assert datetime.fromisoformat(told["transact_time"]).astimezone(UTC) == order["updated_at"]

    def test_the_audit_says_who_wished_it(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        market.cancel(trader, placed["order_id"])

        row = market.audit(trader, placed["order_id"])[-1]
        (personal,) = [kept for kept in market.rows("audit_pii", trader) if kept["audit_id"] == row["id"]]
        assert (row["action"], row["status"]) == ("CANCELED", "canceled")
        assert row["reason"] == "User requested cancellation"
        assert (str(personal["ip_address"]), personal["email"]) == ("192.0.2.1", trader.email)

    def test_the_event_tells_it(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        canceled = market.cancel(trader, placed["order_id"], request_id="request-9")

        event = market.last_event(trader)
        (fact,) = event["payload"]["orders"]
        assert (event["event_type"], event["sequence"]) == ("order.canceled", canceled["sequence"])
        assert (fact["order_id"], fact["status"], fact["leaves_quantity"]) == (placed["order_id"], "canceled", 0)
        assert event["request_id"] == "request-9"

    @pytest.mark.parametrize("status", ["suspended", "closed"])
    def test_open_to_who_may_not_trade(self, market: Market, trader: User, status: str) -> None:
        placed = market.place(trader)
        market.execute(
            "UPDATE profiles SET account_status = %s, kyc_status = 'rejected' WHERE id = %s", (status, trader.user_id)
        )
        market.execute("UPDATE platform_settings SET trading_state = 'halted'")

        assert market.cancel(trader, placed["order_id"])["outcome"] == "canceled"

    def test_another_order_of_the_account_works_on(self, market: Market, trader: User) -> None:
        one, other = market.place(trader), market.place(trader)

        market.cancel(trader, one["order_id"])

        states = {str(row["id"]): row["status"] for row in market.rows("orders", trader)}
        assert states == {one["order_id"]: "canceled", other["order_id"]: "new"}


class TestRefusal:
    def refused(self, market: Market, user: User, sqlstate: str, order_id: object, **fields: object) -> Any:
        before, account = market.counts(user), market.account(user)
        with raises_sqlstate(sqlstate) as caught:
            market.cancel(user, order_id, **fields)
        assert (market.counts(user), market.account(user)) == (before, account)
        return caught.value

    def test_a_filled_order(self, market: Market, trader: User) -> None:
        filled = market.trade(trader)

        error = self.refused(market, trader, "TR009", filled["order_id"])

        assert details_of(error) == {"field": "status", "value": "filled", "constraint": "an order that works"}
        assert "close its position" in error.diag.message_primary

    def test_a_denied_order(self, market: Market) -> None:
        user = market.user(balance=0)
        denied = market.place(user)

        assert details_of(self.refused(market, user, "TR009", denied["order_id"]))["value"] == "denied"

    def test_a_canceled_order(self, market: Market, trader: User) -> None:
        placed = market.place(trader)
        market.cancel(trader, placed["order_id"])

        assert details_of(self.refused(market, trader, "TR009", placed["order_id"]))["value"] == "canceled"

    @pytest.mark.parametrize(
        ("status", "columns"),
        [("expired", {}), ("replaced", {}), ("rejected", {"failure_code": "INSUFFICIENT_MARGIN"})],
    )
    def test_an_order_that_ended_otherwise(
        self, market: Market, trader: User, status: str, columns: dict[str, object]
    ) -> None:
        placed = market.place(trader)
        with market.owner.transaction(force_rollback=True):
            force_status(market, placed["order_id"], status, **columns)
            with raises_sqlstate("TR009") as caught, market.owner.transaction():
                send(market.owner, keyed_request(trader, order_id=placed["order_id"]), "cancel_order")

        assert details_of(caught.value)["value"] == status

    def test_an_order_on_its_way_to_a_venue(self, market: Market, trader: User) -> None:
        placed = market.place(trader)
        with market.owner.transaction(force_rollback=True):
            market.execute("ALTER TABLE orders DISABLE TRIGGER legal_transition")
            market.execute("UPDATE orders SET status = 'pending_new' WHERE id = %s", (placed["order_id"],))
            with raises_sqlstate("TR009") as caught, market.owner.transaction():
                send(market.owner, keyed_request(trader, order_id=placed["order_id"]), "cancel_order")

        assert details_of(caught.value)["value"] == "pending_new"
        assert "on its way" in (caught.value.diag.message_primary or "")

    @pytest.mark.parametrize("filled", ["0.4", "0"])
    def test_a_triggered_or_partly_filled_order_can_be_canceled(
        self, market: Market, trader: User, filled: str
    ) -> None:
        placed = market.place(trader)
        with market.owner.transaction(force_rollback=True):
            market.execute(
                "UPDATE orders SET status = %s, filled_quantity = %s, leaves_quantity = quantity - %s WHERE id = %s",
                ("triggered" if filled == "0" else "partially_filled", filled, filled, placed["order_id"]),
            )
            canceled = send(market.owner, keyed_request(trader, order_id=placed["order_id"]), "cancel_order").answer

        assert canceled["status"] == "canceled"
        assert (str(canceled["filled_quantity"]), canceled["leaves_quantity"]) == (filled, 0)

    def test_an_order_that_is_not_there_or_somebody_elses(self, market: Market, trader: User) -> None:
        theirs = market.place(market.user())["order_id"]

        missing = details_of(self.refused(market, trader, "TR001", uuid.uuid4()))
        foreign = details_of(self.refused(market, trader, "TR001", theirs))

        assert missing["field"] == foreign["field"] == "id"
        assert missing["constraint"] == foreign["constraint"]

    def test_without_a_key(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        error = self.refused(market, trader, "TR006", placed["order_id"], idempotency_key=None)

        assert details_of(error)["field"] == "idempotency_key"

    def test_a_key_that_placed_the_order_cannot_cancel_it(self, market: Market, trader: User) -> None:
        request = resting_request(trader)
        placed = send(market.trader, request, "place_order")

        self.refused(market, trader, "TR003", placed["order_id"], idempotency_key=request["idempotency_key"])


class TestReplayAndRaces:
    def test_the_same_answer_byte_for_byte(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, order_id=market.place(trader)["order_id"])

        first, second = [send(market.trader, request, "cancel_order") for _ in range(2)]

        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text

    def test_twenty_keys_cancel_once(self, market: Market, trader: User) -> None:
        order_id = market.place(trader)["order_id"]

        told = told_at_once(market, [("cancel_order", keyed_request(trader, order_id=order_id)) for _ in range(20)])

        assert (told.count("canceled"), told.count("TR009")) == (1, 19)
        rows = [row["action"] for row in market.rows("order_audit_log", trader)]
        assert rows.count("CANCELED") == 1
        assert deadlocks(market) == 0

    def test_twenty_callers_with_one_key_are_told_the_same(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, order_id=market.place(trader)["order_id"])

        told = told_at_once(market, [("cancel_order", request)] * 20)

        assert (told.count("canceled"), told.count("replayed")) == (1, 19)
        assert deadlocks(market) == 0

    def test_cancels_among_new_orders(self, market: Market) -> None:
        user = market.user(risk={"max_positions": None})
        ids = [market.place(user)["order_id"] for _ in range(10)]
        calls = [("cancel_order", keyed_request(user, order_id=order_id)) for order_id in ids]

        told = told_at_once(market, calls + [("place_order", resting_request(user)) for _ in range(10)])

        assert (told.count("canceled"), told.count("new")) == (10, 10)
        sequences = sorted(row["sequence"] for row in market.rows("events", user))
        assert sequences == list(range(1, len(sequences) + 1))
        assert deadlocks(market) == 0
