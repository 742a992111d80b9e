"""replace_order: a new order in the place of one that works, or nothing; whatever else happens at the same moment."""

import uuid
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import (
    Market,
    at_once,
    deadlocks,
    details_of,
    keyed_request,
    raises_sqlstate,
    resting_request,
    send,
    stale_time,
    told_at_once,
)
from tests.kit.ticks import Ticker, call, execution_request

LATER = "2090-01-01T00:00:00+00:00"


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


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def order_row(market: Market, user: User, order_id: object) -> dict[str, Any]:
    (row,) = [row for row in market.rows("orders", user) if str(row["id"]) == str(order_id)]
    return row


def states(market: Market, user: User) -> list[str]:
    return sorted(row["status"] for row in market.rows("orders", user))


class TestReplacing:
    def test_a_new_order_takes_the_place_of_the_old(self, market: Market, trader: User) -> None:
        placed = market.place(trader, quantity="2", stop_loss="1.0400", client_order_id="first")

        replaced = market.replace(trader, placed["order_id"], limit_price="1.0600", client_order_id="second")

        old = order_row(market, trader, placed["order_id"])
        new = order_row(market, trader, replaced["order_id"])
        assert (old["status"], old["leaves_quantity"], old["version"], old["replaces_order_id"]) == (
            "replaced",
            0,
            2,
            None,
        )
        assert (new["status"], new["quantity"], new["leaves_quantity"], new["version"]) == ("new", 2, 2, 1)
        assert (str(new["limit_price"]), str(new["stop_loss"]), new["take_profit"]) == ("1.06000", "1.0400", None)
        assert (new["client_order_id"], new["replaces_order_id"]) == ("second", old["id"])
        assert (old["symbol"], old["side"], old["order_type"]) == (new["symbol"], new["side"], new["order_type"])
        assert old["updated_at"] == new["created_at"]

    def test_the_answer_tells_both(self, market: Market, trader: User) -> None:
        placed = market.place(trader, take_profit="1.2")

        told = market.replace(trader, placed["order_id"], quantity="3").answer

        assert (told["outcome"], told["status"], told["quantity"], told["version"]) == ("new", "new", 3, 1)
        assert (told["replaces_order_id"], str(told["take_profit"])) == (placed["order_id"], "1.20000")
        old = told["replaced"]
        assert (old["order_id"], old["status"], old["version"]) == (placed["order_id"], "replaced", 2)
        assert told["sequence"] == placed["sequence"] + 1

    def test_what_is_left_out_stays(self, market: Market, trader: User) -> None:
        asked = {
            "order_type": "stop_limit",
            "stop_price": "1.2",
            "limit_price": "1.21",
            "stop_loss": "1.1",
            "take_profit": "1.3",
            "max_slippage": "0.5",
            "strategy_id": "s",
            "signal_id": "g",
            "component_name": "c",
            "metadata": {"a": None, "b": [1]},
            "execution_instructions": {"urgency": "low"},
            "parent_order_id": market.trade(trader)["order_id"],
        }
        placed = market.place(trader, **asked)

        replaced = market.replace(trader, placed["order_id"], quantity="2")

        old, new = (order_row(market, trader, each["order_id"]) for each in (placed, replaced))
        same = [*asked, "symbol", "side", "time_in_force", "reduce_only"]
        assert {name: new[name] for name in same} == {name: old[name] for name in same}
        assert new["client_order_id"] is None

    def test_of_a_netting_account_it_still_only_reduces(self, market: Market) -> None:
        netter = market.user(position_mode="netting")
        market.trade(netter, quantity="2")
        placed = market.place(netter, side="sell", quantity="1", limit_price="1.2", reduce_only=True)

        replaced = market.replace(netter, placed["order_id"], quantity="2")

        assert order_row(market, netter, replaced["order_id"])["reduce_only"] is True
        # and one for more than is held closes what there is, and opens nothing
        touched = market.replace(netter, replaced["order_id"], quantity="3", limit_price="1.0990")
        assert (touched["outcome"], touched["filled_quantity"]) == ("canceled", 2)
        assert [position["status"] for position in market.rows("positions", netter)] == ["closed"]

    def test_null_takes_a_stop_loss_and_a_take_profit_away(self, market: Market, trader: User) -> None:
        placed = market.place(trader, stop_loss="1.0400", take_profit="1.2")

        without_one = market.replace(trader, placed["order_id"], stop_loss=None)
        without_both = market.replace(trader, without_one["order_id"], take_profit=None)

        (one, both) = (order_row(market, trader, each["order_id"]) for each in (without_one, without_both))
        assert (one["stop_loss"], str(one["take_profit"])) == (None, "1.2")
        assert (both["stop_loss"], both["take_profit"]) == (None, None)

    def test_the_audit_tells_it_on_both(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        replaced = market.replace(trader, placed["order_id"], limit_price="1.0600")

        old = market.audit(trader, placed["order_id"])[-1]
        new = market.audit(trader, replaced["order_id"])
        personal = {row["audit_id"]: row for row in market.rows("audit_pii", trader)}
        assert (old["action"], old["status"], old["reason"]) == ("REPLACED", "replaced", "User requested replacement")
        assert old["details"]["replaced_by"] == replaced["order_id"]
        assert [(row["action"], row["status"]) for row in new] == [("SUBMITTED", "pending_new"), ("APPROVED", "new")]
        assert new[0]["details"]["replaces_order_id"] == placed["order_id"]
        assert (str(personal[new[0]["id"]]["ip_address"]), personal[new[0]["id"]]["email"]) == (
            "192.0.2.1",
            trader.email,
        )

    def test_one_event_tells_both(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        replaced = market.replace(trader, placed["order_id"], limit_price="1.0600", request_id="request-9")

        event = market.last_event(trader)
        assert (event["event_type"], event["sequence"], event["request_id"]) == (
            "order.replaced",
            replaced["sequence"],
            "request-9",
        )
        assert [(fact["order_id"], fact["status"]) for fact in event["payload"]["orders"]] == [
            (placed["order_id"], "replaced"),
            (replaced["order_id"], "new"),
        ]
        assert event["payload"]["orders"][1]["replaces_order_id"] == placed["order_id"]

    def test_again_and_again(self, market: Market, trader: User) -> None:
        order_id = market.place(trader)["order_id"]

        for limit in ("1.0400", "1.0300", "1.0200"):
            order_id = market.replace(trader, order_id, limit_price=limit)["order_id"]

        assert states(market, trader) == ["new", "replaced", "replaced", "replaced"]

    def test_the_old_one_is_not_counted_with_the_working(self, market: Market) -> None:
        user = market.user(risk={"max_working_orders": 1})
        placed = market.place(user)

        assert market.replace(user, placed["order_id"], limit_price="1.0600")["outcome"] == "new"
        assert market.place(user)["code"] == "RISK_LIMIT_VIOLATION"

    def test_more_working_than_the_limit_that_was_set_since(self, market: Market) -> None:
        user = market.user()
        placed = market.place(user)
        market.execute("UPDATE risk_settings SET max_working_orders = 0 WHERE user_id = %s", (user.user_id,))

        assert market.replace(user, placed["order_id"], limit_price="1.0600")["code"] == "RISK_LIMIT_VIOLATION"
        assert order_row(market, user, placed["order_id"])["status"] == "new"


class TestItsEnd:
    @pytest.mark.parametrize(
        ("order", "changes", "time_in_force", "expires"),
        [
            ({}, {"time_in_force": "gtd", "expires_at": LATER}, "gtd", True),
            ({"time_in_force": "gtd", "expires_at": LATER}, {"quantity": "2"}, "gtd", True),
            ({"time_in_force": "gtd", "expires_at": LATER}, {"time_in_force": "gtc"}, "gtc", False),
            ({}, {"time_in_force": "day"}, "day", True),
            ({"time_in_force": "day"}, {"quantity": "2"}, "day", True),
        ],
    )
    def test_it_is_what_the_time_in_force_says(
        self,
        market: Market,
        trader: User,
        order: dict[str, object],
        changes: dict[str, object],
        time_in_force: str,
        expires: bool,
    ) -> None:
        placed = market.place(trader, **order)

        replaced = market.replace(trader, placed["order_id"], **changes)

        row = order_row(market, trader, replaced["order_id"])
        assert (row["status"], row["time_in_force"], row["expires_at"] is not None) == ("new", time_in_force, expires)
        if time_in_force == "gtd":
            assert row["expires_at"] == datetime.fromisoformat(LATER)


class TestTouchedAtOnce:
    def test_it_is_filled_in_the_call_that_replaces(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        told = market.replace(trader, placed["order_id"], limit_price="1.1050").answer

        new = order_row(market, trader, told["order_id"])
        assert (told["outcome"], told["status"], told["average_price"]) == ("filled", "filled", Decimal("1.1002"))
        assert (told["version"], told["replaced"]["status"]) == (new["version"], "replaced")
        events = sorted(market.rows("events", trader), key=lambda row: row["sequence"])[-2:]
        assert [event["event_type"] for event in events] == ["order.replaced", "order.filled"]
        assert told["sequence"] == events[-1]["sequence"]

    def test_what_it_waits_for_is_its_own(self, market: Market, trader: User, ticker: Ticker) -> None:
        placed = market.place(trader, limit_price="1.0950")

        replaced = market.replace(trader, placed["order_id"], limit_price="1.0900")

        assert ticker.tick("EURUSD", "1.0940", "1.0942") == []
        assert ticker.tick("EURUSD", "1.0890", "1.0892") == ["filled"]
        assert order_row(market, trader, replaced["order_id"])["status"] == "filled"

    def test_refused_at_that_price_it_is_denied_and_the_old_one_works_on(self, market: Market) -> None:
        """Its own price leaves the margin, the spread of the quote does not."""
        user = market.user(balance="1100.30")
        placed = market.place(user)
        request = keyed_request(user, order_id=placed["order_id"], limit_price="1.1002")

        denied = send(market.trader, request, "replace_order")

        assert (denied["outcome"], denied["code"]) == ("denied", "INSUFFICIENT_MARGIN")
        old, kept = order_row(market, user, placed["order_id"]), order_row(market, user, denied["order_id"])
        assert (old["status"], old["version"], kept["status"], kept["replaces_order_id"]) == (
            "new",
            1,
            "denied",
            old["id"],
        )
        assert market.last_event(user)["event_type"] == "order.denied"
        assert send(market.trader, request, "replace_order").text == denied.text

    @pytest.mark.parametrize("_turn", range(5))
    def test_against_a_fill_either_comes_first(self, market: Market, trader: User, ticker: Ticker, _turn: int) -> None:
        placed = market.place(trader, limit_price="1.0950")
        ticker.touch("EURUSD", "1.0940", "1.0942")
        (claimed,) = ticker.claim()
        request = keyed_request(trader, order_id=placed["order_id"], limit_price="1.0500", order_version=1)

        def fill(_connection: psycopg.Connection[Any]) -> str:
            with market.database.connect("function_triggers") as connection:
                return call(connection, "execute_trigger", execution_request(claimed))["state"]

        def replace(connection: psycopg.Connection[Any]) -> str:
            try:
                return send(connection, request, "replace_order")["outcome"]
            except psycopg.Error as error:
                return error.sqlstate or ""

        told = at_once(market, [fill, replace])

        # then only an order that was not filled is replaced, and who comes second is told
        assert tuple(told) in {("filled", "TR010"), ("idle", "new")}
        assert states(market, trader) == (["filled"] if told[0] == "filled" else ["new", "replaced"])
        assert ticker.queued() == 0

    def test_a_part_that_was_filled_stays_with_the_old_one(self, market: Market, ticker: Ticker) -> None:
        """EURUSD trades 28.93 lots in a second: as much stands at one quote."""
        user = market.user(balance="1000000", risk={"max_position_size": None})
        placed = market.place(user, quantity="50", limit_price="1.0950")
        ticker.tick("EURUSD", "1.0940", "1.0942")
        market.quote("EURUSD", "1.1000", "1.1002")

        replaced = market.replace(user, placed["order_id"], quantity="40", order_version=2)
        ticker.tick("EURUSD", "1.0938", "1.0940")

        old, new = (order_row(market, user, each["order_id"]) for each in (placed, replaced))
        assert (old["status"], old["filled_quantity"], old["leaves_quantity"]) == ("replaced", Decimal("28.93"), 0)
        assert Decimal(str(market.audit(user, old["id"])[-1]["details"]["filled_quantity"])) == Decimal("28.93")
        assert (new["status"], new["quantity"], new["filled_quantity"]) == (
            "filled",
            Decimal("11.07"),
            Decimal("11.07"),
        )
        fills = {str(fill["order_id"]): fill["quantity"] for fill in market.rows("fills", user)}
        assert fills == {placed["order_id"]: Decimal("28.93"), replaced["order_id"]: Decimal("11.07")}


class TestPartlyFilled:
    """Of quantities to the cent, which the depth of a quote does not give: put there and rolled back."""

    def replaced(self, market: Market, trader: User, filled: str, **changes: object) -> dict[str, Any]:
        placed = market.place(trader, quantity="2")
        with market.owner.transaction(force_rollback=True):
            market.execute(
                "UPDATE orders SET status = 'partially_filled', filled_quantity = %(filled)s::numeric, "
                "leaves_quantity = quantity - %(filled)s::numeric, average_price = 1.05 WHERE id = %(id)s",
                {"filled": filled, "id": placed["order_id"]},
            )
            request = keyed_request(trader, order_id=placed["order_id"], **changes)
            answer = send(market.owner, request, "replace_order").answer
            return {
                "answer": answer,
                "old": order_row(market, trader, placed["order_id"]),
                "new": order_row(market, trader, answer["order_id"]),
            }

    @pytest.mark.parametrize(
        ("changes", "left"), [({}, "1.5"), ({"quantity": "3"}, "2.5"), ({"quantity": "0.51"}, "0.01")]
    )
    def test_the_new_one_is_for_what_is_not_filled(
        self, market: Market, trader: User, changes: dict[str, object], left: str
    ) -> None:
        found = self.replaced(market, trader, "0.5", limit_price="1.04", **changes)

        assert (found["new"]["quantity"], found["new"]["filled_quantity"]) == (Decimal(left), 0)
        assert (found["old"]["quantity"], found["old"]["filled_quantity"], found["old"]["leaves_quantity"]) == (
            2,
            Decimal("0.5"),
            0,
        )
        assert found["answer"]["replaced"]["filled_quantity"] == Decimal("0.5")

    @pytest.mark.parametrize("quantity", ["0.5", "0.4"])
    def test_something_must_be_left(self, market: Market, trader: User, quantity: str) -> None:
        with raises_sqlstate("TR006") as caught:
            self.replaced(market, trader, "0.5", quantity=quantity)

        assert details_of(caught.value) == {
            "field": "quantity",
            "value": quantity,
            "constraint": "more than the 0.5 that is filled",
        }


class TestRefusal:
    def refused(self, market: Market, user: User, sqlstate: str, order_id: object, **changes: object) -> Any:
        before, account = market.counts(user), market.account(user)
        with raises_sqlstate(sqlstate) as caught:
            market.replace(user, order_id, **changes)
        assert (market.counts(user), market.account(user)) == (before, account)
        return caught.value

    def test_too_little_margin_leaves_the_old_one_at_work(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        denied = market.replace(trader, placed["order_id"], quantity="100")

        old, kept = order_row(market, trader, placed["order_id"]), order_row(market, trader, denied["order_id"])
        assert (denied["outcome"], denied["code"]) == ("denied", "INSUFFICIENT_MARGIN")
        assert (old["status"], old["leaves_quantity"], old["version"]) == ("new", 1, 1)
        assert (kept["status"], kept["replaces_order_id"], kept["failure_code"]) == (
            "denied",
            old["id"],
            "INSUFFICIENT_MARGIN",
        )
        rows = market.audit(trader, denied["order_id"])
        assert [row["action"] for row in rows] == ["SUBMITTED", "REJECTED"]
        assert rows[0]["details"]["replaces_order_id"] == placed["order_id"]
        assert market.last_event(trader)["event_type"] == "order.denied"
        # and it can still be replaced by what fits
        assert market.replace(trader, placed["order_id"], quantity="2")["outcome"] == "new"

    @pytest.mark.parametrize(
        ("statement", "code"),
        [
            ("UPDATE profiles SET kyc_status = 'rejected' WHERE id = %s", "KYC_REQUIRED"),
            ("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", "ACCOUNT_NOT_ACTIVE"),
            ("UPDATE accounts SET trading_state = 'halted' WHERE user_id = %s", "TRADING_HALTED"),
            ("UPDATE risk_settings SET max_position_size = 0.5 WHERE user_id = %s", "RISK_LIMIT_VIOLATION"),
        ],
    )
    def test_who_may_not_place_it_now_may_not_replace(
        self, market: Market, trader: User, statement: str, code: str
    ) -> None:
        placed = market.place(trader)
        with market.owner.transaction(force_rollback=True):
            market.execute(statement, (trader.user_id,))
            request = keyed_request(trader, order_id=placed["order_id"], limit_price="1.04")
            denied = send(market.owner, request, "replace_order")

        assert denied["code"] == code

    @pytest.mark.parametrize(
        ("order", "changes", "field"),
        [
            ({}, {"quantity": "0.001"}, "quantity"),
            ({}, {"quantity": "100000"}, "quantity"),
            ({}, {"limit_price": "1.050001"}, "limit_price"),
            ({}, {"stop_price": "1.2"}, "stop_price"),
            ({}, {"time_in_force": "ioc"}, "time_in_force"),
            ({}, {"time_in_force": "fok"}, "time_in_force"),
            ({}, {"time_in_force": "gtd"}, "expires_at"),
            ({"time_in_force": "day"}, {"time_in_force": "gtd"}, "expires_at"),
            ({}, {"time_in_force": "gtd", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({}, {"expires_at": LATER}, "expires_at"),
            ({}, {"stop_loss": "1.06"}, "stop_loss"),
            ({"stop_loss": "1.04"}, {"limit_price": "1.03"}, "stop_loss"),
            ({"order_type": "stop", "limit_price": None, "stop_price": "1.2"}, {"limit_price": "1.2"}, "limit_price"),
            ({"order_type": "stop", "limit_price": None, "stop_price": "1.2"}, {"stop_price": "1.1"}, "stop_price"),
        ],
    )
    def test_a_value_that_does_not_fit(
        self, market: Market, trader: User, order: dict[str, object], changes: dict[str, object], field: str
    ) -> None:
        placed = market.place(trader, **order)

        error = self.refused(market, trader, "TR006", placed["order_id"], **changes)

        assert details_of(error)["field"] == field
        assert order_row(market, trader, placed["order_id"])["status"] == "new"

    @pytest.mark.parametrize("name", ["first", "other"])
    def test_a_client_order_id_that_was_used(self, market: Market, trader: User, name: str) -> None:
        placed = market.place(trader, client_order_id="first")
        market.place(trader, client_order_id="other")

        error = self.refused(market, trader, "TR005", placed["order_id"], client_order_id=name)

        assert details_of(error)["field"] == "client_order_id"

    def test_a_stale_price_keeps_nothing_and_leaves_the_key_free(self, market: Market, trader: User) -> None:
        placed = market.place(trader, order_type="stop", limit_price=None, stop_price="1.2")
        request = keyed_request(trader, order_id=placed["order_id"], quantity="2")
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        with raises_sqlstate("TR004"):
            send(market.trader, request, "replace_order")
        market.quote("EURUSD", "1.1000", "1.1002")

        assert send(market.trader, request, "replace_order")["outcome"] == "new"

    @pytest.mark.parametrize("end", ["filled", "denied", "canceled", "replaced"])
    def test_an_order_that_does_not_work(self, market: Market, trader: User, end: str) -> None:
        if end == "filled":
            order_id = market.trade(trader)["order_id"]
        elif end == "denied":
            order_id = market.place(trader, quantity="100")["order_id"]
        else:
            order_id = market.place(trader)["order_id"]
            _ = market.cancel(trader, order_id) if end == "canceled" else market.replace(trader, order_id, quantity="2")

        details = details_of(self.refused(market, trader, "TR009", order_id, quantity="3"))

        assert (details["field"], details["value"]) == ("status", end)
        assert (details["order"]["id"], details["order"]["status"]) == (order_id, end)

    def test_an_order_on_its_way_to_a_venue(self, market: Market, trader: User) -> None:
        with market.owner.transaction(force_rollback=True):
            market.execute("UPDATE instruments SET venue = 'paper' WHERE symbol = 'EURUSD'")
            request = resting_request(trader, order_type="market", limit_price=None)
            accepted = send(market.owner, request, "accept_order")
            changes = keyed_request(trader, order_id=accepted["order_id"], quantity="2")
            with raises_sqlstate("TR009") as caught, market.owner.transaction():
                send(market.owner, changes, "replace_order")
            market.execute(
                "UPDATE orders SET status = 'partially_filled', filled_quantity = 0.4, leaves_quantity = 0.6, "
                "average_price = 1.1 WHERE id = %s",
                (accepted["order_id"],),
            )
            with raises_sqlstate("TR009") as working, market.owner.transaction():
                send(market.owner, changes, "replace_order")

        assert details_of(caught.value)["value"] == "pending_new"
        assert "on its way" in (caught.value.diag.message_primary or "")
        assert details_of(working.value)["constraint"] == "an order that works here"

    def test_an_order_that_is_not_there_or_somebody_elses(self, market: Market, trader: User) -> None:
        theirs = market.place(market.user())["order_id"]

        missing = details_of(self.refused(market, trader, "TR001", uuid.uuid4(), quantity="2"))
        foreign = details_of(self.refused(market, trader, "TR001", theirs, quantity="2"))

        assert missing["field"] == foreign["field"] == "id"

    def test_without_a_key(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        error = self.refused(market, trader, "TR006", placed["order_id"], idempotency_key=None)

        assert details_of(error)["field"] == "idempotency_key"

    @pytest.mark.parametrize("procedure", ["place_order", "accept_order", "execute_order_atomic"])
    def test_no_other_procedure_takes_an_orders_place(self, market: Market, trader: User, procedure: str) -> None:
        placed = market.place(trader)
        asked = {} if procedure == "place_order" else {"order_type": "market", "limit_price": None, "quantity": "100"}

        other = send(market.trader, resting_request(trader, replaces_order_id=placed["order_id"], **asked), procedure)

        assert order_row(market, trader, other["order_id"])["replaces_order_id"] is None
        assert order_row(market, trader, placed["order_id"])["status"] == "new"


class TestVersion:
    def test_the_one_that_is_known(self, market: Market, trader: User) -> None:
        placed = market.place(trader)

        assert market.replace(trader, placed["order_id"], order_version=1, quantity="2")["outcome"] == "new"

    def test_another_one_is_told_the_order_as_it_is(self, market: Market, trader: User) -> None:
        placed = market.place(trader)
        market.cancel(trader, placed["order_id"])
        before = market.counts(trader)

        with raises_sqlstate("TR010") as caught:
            market.replace(trader, placed["order_id"], order_version=1, quantity="2")

        details = details_of(caught.value)
        assert (details["field"], details["value"], details["constraint"]) == ("version", "1", "the order's version, 2")
        assert (details["order"]["status"], details["order"]["version"]) == ("canceled", 2)
        assert market.counts(trader) == before


class TestReplayAndRaces:
    def test_the_same_answer_byte_for_byte(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, order_id=market.place(trader)["order_id"], quantity="2")

        first, second = [send(market.trader, request, "replace_order") for _ in range(2)]

        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text
        assert states(market, trader) == ["new", "replaced"]

    def test_a_denial_is_kept_too(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, order_id=market.place(trader)["order_id"], quantity="100")

        first, second = [send(market.trader, request, "replace_order") for _ in range(2)]

        assert (first["outcome"], second.replayed, first.text) == ("denied", True, second.text)
        assert states(market, trader) == ["denied", "new"]

    def test_twenty_callers_with_one_key_are_told_the_same(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, order_id=market.place(trader)["order_id"], quantity="2")

        told = told_at_once(market, [("replace_order", request)] * 20)

        assert (told.count("new"), told.count("replayed")) == (1, 19)
        assert states(market, trader) == ["new", "replaced"]
        assert deadlocks(market) == 0

    @pytest.mark.parametrize(("known", "lost"), [({}, "TR009"), ({"order_version": 1}, "TR010")])
    def test_of_twenty_keys_one_replaces(
        self, market: Market, trader: User, known: dict[str, object], lost: str
    ) -> None:
        order_id = market.place(trader)["order_id"]
        calls = [keyed_request(trader, order_id=order_id, quantity="2", **known) for _ in range(20)]

        told = told_at_once(market, [("replace_order", request) for request in calls])

        assert (told.count("new"), told.count(lost)) == (1, 19)
        assert states(market, trader) == ["new", "replaced"]
        assert deadlocks(market) == 0

    def test_against_cancels_either_comes_first(self, market: Market, trader: User) -> None:
        order_id = market.place(trader)["order_id"]
        replacing = [("replace_order", keyed_request(trader, order_id=order_id, quantity="2")) for _ in range(5)]
        canceling = [("cancel_order", keyed_request(trader, order_id=order_id)) for _ in range(5)]

        told = told_at_once(market, replacing + canceling)

        # the old order ends once, and only as what its end says is there a new one
        assert (told.count("new") + told.count("canceled"), told.count("TR009")) == (1, 9)
        assert states(market, trader) == (["canceled"] if "canceled" in told else ["new", "replaced"])
        assert deadlocks(market) == 0

    def test_against_cancel_all_every_order_ends_or_is_replaced_by_one_that_may(
        self, market: Market, trader: User
    ) -> None:
        ids = [market.place(trader)["order_id"] for _ in range(6)]
        calls = [("replace_order", keyed_request(trader, order_id=order_id, quantity="2")) for order_id in ids]

        told = told_at_once(market, [*calls, ("cancel_orders", keyed_request(trader))])

        replaced = told.count("new")
        assert (replaced + told.count("TR009"), told.count("canceled")) == (6, 1)
        ended = states(market, trader)
        assert ended.count("replaced") == replaced
        assert ended.count("canceled") + ended.count("new") == 6
        market.cancel_all(trader)

    def test_against_closes_of_the_position_that_it_reduces(self, market: Market) -> None:
        netter = market.user(position_mode="netting")
        position_id = market.trade(netter, quantity="2")["position_id"]
        placed = market.place(netter, side="sell", quantity="1", limit_price="1.2", reduce_only=True)
        replacing = keyed_request(netter, order_id=placed["order_id"], quantity="2")
        closing = keyed_request(netter, position_id=position_id, quantity="1")

        told = told_at_once(market, [("replace_order", replacing), ("close_position", closing)])

        # two lots may be asked for whatever is left: what is sold is cut to it
        assert told == ["new", "filled"]
        expected = ["new", "replaced"] if told[0] == "new" else ["denied", "new"]
        assert [state for state in states(market, netter) if state != "filled"] == expected
        assert deadlocks(market) == 0

    def test_among_new_orders_sequences_have_no_gap(self, market: Market) -> None:
        user = market.user(risk={"max_positions": None})
        ids = [market.place(user)["order_id"] for _ in range(8)]
        calls = [("replace_order", keyed_request(user, order_id=order_id, quantity="2")) for order_id in ids]

        told = told_at_once(market, calls + [("place_order", resting_request(user)) for _ in range(8)])

        assert told == ["new"] * 16
        sequences = sorted(row["sequence"] for row in market.rows("events", user))
        assert sequences == list(range(1, len(sequences) + 1))
        assert deadlocks(market) == 0
