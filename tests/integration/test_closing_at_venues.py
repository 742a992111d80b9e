"""What the platform closes at a venue: sent there once, booked by what the venue reports, never in our books alone."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import boto3
import pytest
from moto import mock_aws

from tests.kit import MigratedTemplate, User
from tests.kit.functions import bearer, call, function_environment, http_event, load_function, make_token
from tests.kit.kill_switch import Officer
from tests.kit.orders import details_of, raises_sqlstate
from tests.kit.risk import make_profile, stop_out_step, watch_by
from tests.kit.ticks import Ticker
from tests.kit.venues import PAIR, STOCK, VenueWorld


@pytest.fixture(scope="module")
def module_world(migrated: MigratedTemplate) -> Iterator[VenueWorld]:
    scratch = migrated.clone()
    try:
        with VenueWorld.opened(scratch) as world:
            yield world
    finally:
        scratch.drop()


@pytest.fixture
def world(module_world: VenueWorld) -> Iterator[VenueWorld]:
    """The module's world with its quotes as they were; whatever a test does, the books are in order after it."""
    module_world.market.prepare()
    module_world.market.quote(STOCK, "149.98", "150.00")
    module_world.market.quote(PAIR, "1.1000", "1.1002")
    yield module_world
    assert module_world.market.book_faults() == []


@pytest.fixture
def step(world: VenueWorld) -> Iterator[Callable[[User], dict[str, Any]]]:
    with world.market.database.connect("function_risk") as connection:
        yield lambda user: stop_out_step(connection, user)


@pytest.fixture
def officer(world: VenueWorld) -> Iterator[Officer]:
    # What other tests have left undone is no work of this one's.
    world.market.execute("UPDATE wind_down_accounts SET done_at = clock_timestamp() WHERE done_at IS NULL")
    with Officer.opened(world.market) as officer:
        yield officer


def held_at_venue(
    world: VenueWorld, user: User, symbol: str = STOCK, quantity: str = "10", price: str = "150.00"
) -> UUID:
    """A position that the venue has filled; its id."""
    world.fill(world.sent(user, symbol=symbol, quantity=quantity), quantity, price)
    return max(row["id"] for row in world.market.rows("positions", user))


def shareholder(world: VenueWorld, balance: str = "100", **facts: Any) -> User:
    """Ten shares bought at 150.00 take 10 x 150 / 20 = 75.00 of margin: they are stopped out at 15.00 of equity."""
    user = world.market.user(balance=balance, **facts)
    held_at_venue(world, user)
    return user


def fall(world: VenueWorld) -> None:
    """Each share has lost 9.02, ten 90.20: some 9.60 of 100 are left, less than 20 percent of 75.00."""
    world.market.quote(STOCK, "140.98", "141.00")


def closing_orders(world: VenueWorld, user: User) -> list[dict[str, Any]]:
    return [row for row in world.market.rows("orders", user) if row["reduce_only"]]


def open_quantities(world: VenueWorld, user: User) -> dict[UUID, Decimal]:
    return {row["id"]: row["quantity"] for row in world.market.rows("positions", user) if row["status"] == "open"}


def a_minute_later(world: VenueWorld, user: User) -> None:
    world.market.execute(
        "UPDATE venue_routes SET updated_at = updated_at - interval '61 seconds' WHERE user_id = %s", (user.user_id,)
    )


class TestStopOut:
    @pytest.mark.parametrize("mode", ["hedging", "netting"])
    def test_it_sends_one_order_and_is_over_when_the_venue_has_filled_it(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]], mode: str
    ) -> None:
        # given
        user = shareholder(world, position_mode=mode)
        (position,) = open_quantities(world, user)
        fall(world)
        before = world.market.account(user)["balance"]

        # when it is stepped twice before the venue says anything
        first, second = step(user), step(user)

        # then one order is on its way, and nothing is booked yet
        (order,) = closing_orders(world, user)
        assert (first["state"], first["venue"], first["order_id"]) == ("routed", "mock", str(order["id"]))
        assert (second["state"], second["order_id"], second["sequence"]) == ("routed", None, None)
        assert (order["status"], order["side"], order["quantity"]) == ("pending_new", "sell", 10)
        assert order["component_name"] == "stop_out"
        assert (open_quantities(world, user), world.market.account(user)["balance"]) == ({position: 10}, before)
        # and it is told, with the reason in the audit
        event = world.market.last_event(user)
        assert (event["event_type"], event["payload"]["risk"]["state"]) == ("stop_out.routed", "routed")
        assert world.market.audit(user, order["id"])[0]["reason"].startswith("Stop-out: margin level")

        # and when the venue fills it, it takes from that very position
        world.fill(world.leased(user, order["id"]), "10", "140.50")
        assert open_quantities(world, user) == {}
        assert len(world.market.rows("positions", user)) == 1
        assert step(user)["state"] == "recovered"

    def test_a_part_that_the_venue_fills_leaves_the_rest_to_it(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given a closing order of which four shares are filled
        user = shareholder(world)
        fall(world)
        routed = world.leased(user, step(user)["order_id"])
        world.fill(routed, "4", "138.00")

        # when / then it is neither called back nor sent again
        assert (step(user)["state"], len(closing_orders(world, user))) == ("routed", 1)
        assert world.order(routed)["status"] == "partially_filled"
        world.fill(routed, "6", "138.00")
        assert (step(user)["state"], open_quantities(world, user)) == ("recovered", {})

    def test_what_the_venue_refuses_is_sent_again_after_a_minute(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]]
    ) -> None:
        user = shareholder(world)
        fall(world)
        routed = world.leased(user, step(user)["order_id"])
        world.store.end(routed, "rejected", code="VENUE_REJECTED", reason="no", retry_attempt=0)

        assert (step(user)["state"], len(closing_orders(world, user))) == ("waiting", 1)
        a_minute_later(world, user)
        assert (step(user)["state"], len(closing_orders(world, user))) == ("routed", 2)

    def test_another_position_goes_only_if_what_is_on_its_way_is_not_enough(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given beside the shares, which have lost most, a tenth of a lot of EURUSD that is held here: 110.03 of margin
        user = shareholder(world, "210")
        world.market.trade(user, quantity="0.1")
        fall(world)
        world.market.quote("EURUSD", "1.0995", "1.0997")

        # when equity is some 112 on 185 nothing is due; at 36 the shares go: 36 on 110 are enough
        assert step(user)["state"] == "recovered"
        world.market.quote("EURUSD", "1.0920", "1.0922")
        assert (step(user)["state"], step(user)["state"]) == ("routed", "routed")
        assert len(closing_orders(world, user)) == 1

        # and when it falls to 20 they are not enough any more, and EURUSD goes too
        world.market.quote("EURUSD", "1.0903", "1.0905")
        assert step(user)["state"] == "done"
        assert [row["symbol"] for row in closing_orders(world, user)] == [STOCK, "EURUSD"]
        assert len(open_quantities(world, user)) == 1

    def test_orders_at_rest_go_before_it(self, world: VenueWorld, step: Callable[[User], dict[str, Any]]) -> None:
        user = shareholder(world)
        resting = world.market.place(user, quantity="0.01")["order_id"]
        opening = world.sent(user, quantity="2")
        world.fill(opening, "1", "150.00")
        fall(world)

        answer = step(user)

        assert (answer["state"], answer["canceled_orders"]) == ("more", [resting, str(opening.id.order_id)])
        assert len(closing_orders(world, user)) == 1

    @pytest.mark.parametrize("scope", ["platform", "symbol", "account"])
    def test_halted_it_goes_out_all_the_same(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]], officer: Officer, scope: str
    ) -> None:
        user = shareholder(world)
        fall(world)
        named = {"symbol": {"symbol": STOCK}, "account": {"account_id": str(user.account_id)}}.get(scope, {})
        officer.set_state(scope, "halted", **named)

        assert step(user)["state"] == "routed"

    def test_a_part_is_sent_where_a_part_is_enough(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given 9.00 of equity on 75.00, and a policy that closes no more than brings it to 21 percent
        profile = make_profile(world.market, f"parts_{uuid4().hex[:8]}", policy="smallest_partial_step")
        user = watch_by(world.market, shareholder(world), profile)
        fall(world)

        answer = step(user)

        # then 5.1 of 10 lots go: 36.75 of margin are left, on which what is left of 9.00 after its costs is 21 percent
        (order,) = closing_orders(world, user)
        assert (answer["state"], order["quantity"]) == ("routed", Decimal("5.1"))
        assert step(user)["order_id"] is None

        # and when 5.20 are left, what is on its way needs no margin any more: 2.4 more leave 18.75 of it
        world.market.quote(STOCK, "140.60", "140.62")
        assert step(user)["state"] == "routed"
        assert [row["quantity"] for row in closing_orders(world, user)] == [Decimal("5.1"), Decimal("2.4")]


class TestOwner:
    def test_a_close_goes_to_the_venue_and_the_router_is_told(
        self, world: VenueWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
    ) -> None:
        # given two positions there
        user = world.market.user()
        first, second = (held_at_venue(world, user) for _ in range(2))
        headers = bearer(make_token(user))
        close = http_event(
            "POST /api/v1/positions/{id}/close", path_parameters={"id": str(first)}, headers=headers, body="{}"
        )
        close_all = http_event("POST /api/v1/positions/close-all", headers=headers, body="{}")

        # when one is closed, and then all
        with mock_aws():
            queue = boto3.client("sqs").create_queue(QueueName="route")["QueueUrl"]
            given = {"database": world.market.database, "redis_url": redis_url, "role": "function_trader"}
            with function_environment(monkeypatch, tmp_path, **given, ROUTE_QUEUE_URL=queue):
                handler = load_function("manage_orders")
                one, many = call(handler, close), call(handler, close_all)
            received = boto3.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]

        # then both are on their way, each once
        orders = closing_orders(world, user)
        assert (one.status, one.body["id"], one.body["status"]) == (200, str(orders[0]["id"]), "PENDING")
        assert [each["outcome"] for each in many.body["data"]] == ["REFUSED", "SENT"]
        assert [many.body[count] for count in ("closed", "sent", "refused", "left")] == [0, 1, 1, 2]
        assert sorted(json.loads(message["Body"])["order_id"] for message in received) == sorted(
            str(order["id"]) for order in orders
        )
        # and take from the positions that were meant
        world.fill(world.leased(user, orders[1]["id"]), "10", "149.98")
        assert open_quantities(world, user) == {first: 10}
        world.fill(world.leased(user, orders[0]["id"]), "10", "149.98")
        assert open_quantities(world, user) == {}
        assert second in {row["id"] for row in world.market.rows("positions", user)}

    def test_what_is_on_its_way_to_be_closed_is_not_closed_here_as_well(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given a position that a stop-out has sent to its venue
        user = shareholder(world)
        (position,) = open_quantities(world, user)
        fall(world)
        order_id = step(user)["order_id"]

        with raises_sqlstate("TR010") as caught:
            world.market.close_out(user, position)

        assert details_of(caught.value)["value"] == "in flight"
        world.fill(world.leased(user, order_id), "10", "140.00")
        assert (open_quantities(world, user), len(world.market.rows("positions", user))) == ({}, 1)

    def test_previews_are_told_so_too(
        self,
        world: VenueWorld,
        step: Callable[[User], dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        redis_url: str,
    ) -> None:
        # given a position that a stop-out has sent to its venue
        user = shareholder(world)
        (position,) = open_quantities(world, user)
        fall(world)
        step(user)
        asked = {
            "POST /api/v1/positions/{id}/close/preview": ("POST /api/v1/positions/{id}/close", "{}"),
            "POST /api/v1/positions/{id}/change/preview": ("PATCH /api/v1/positions/{id}", '{"stop_loss": "140.00"}'),
            "POST /api/v1/positions/close-all/preview": ("POST /api/v1/positions/close-all", "{}"),
        }

        # when each is asked about, and then done
        given = {"database": world.market.database, "redis_url": redis_url, "role": "function_trader"}
        with function_environment(monkeypatch, tmp_path, **given):
            handler = load_function("manage_orders")
            told = {
                preview: [
                    call(handler, http_event(
                        route, path_parameters={"id": str(position)}, headers=bearer(make_token(user)), body=body
                    ))
                    for route in (preview, act)
                ]
                for preview, (act, body) in asked.items()
            }  # fmt: skip

        # then they agree
        *of_one, of_all = told.values()
        for previewed, done in of_one:
            assert (previewed.status, previewed.body) == (done.status, done.body)
            assert (done.status, done.body["error"]) == (409, "CONFLICT")
        (previewed,), (done,) = (answer.body["data"] for answer in of_all)
        assert (previewed["accepted"], done["outcome"]) == (False, "REFUSED")
        assert previewed["refusal"]["code"] == done["refusal"]["error"] == "CONFLICT"


class TestHeldElsewhere:
    """Of a hedging account: an instrument may be sent to another venue while positions in it are open."""

    def test_what_was_filled_here_is_closed_here(
        self, world: VenueWorld, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given ten shares that an order at rest has bought, which is filled here
        user = world.market.user(balance="100")
        world.market.place(user, symbol=STOCK, quantity="10", limit_price="149.00")
        with Ticker.opened(world.market) as ticker:
            assert ticker.tick(STOCK, "148.98", "149.00") == ["filled"]
        # when they are stopped out
        world.market.quote(STOCK, "139.98", "140.00")
        done = step(user)
        # then nothing goes to the venue, which has none
        assert (done["state"], done["venue"], open_quantities(world, user)) == ("done", None, {})

    def test_what_a_venue_has_filled_is_closed_there(self, world: VenueWorld) -> None:
        user = shareholder(world)
        (position,) = open_quantities(world, user)
        world.market.execute("UPDATE instruments SET venue = 'internal' WHERE symbol = %s", (STOCK,))

        closed = world.market.close_out(user, position)

        world.market.execute("UPDATE instruments SET venue = 'mock' WHERE symbol = %s", (STOCK,))
        assert (closed["outcome"], closed["venue"]) == ("pending_new", "mock")
        world.fill(world.leased(user, closed["order_id"]), "10", "149.00")
        assert open_quantities(world, user) == {}


class TestExits:
    @pytest.mark.parametrize(("level", "bid"), [("stop_loss", "144.00"), ("take_profit", "156.00")])
    def test_a_level_that_is_touched_closes_at_the_venue_once(self, world: VenueWorld, level: str, bid: str) -> None:
        # given
        user = world.market.user()
        world.fill(world.sent(user, **{level: "145.00" if level == "stop_loss" else "155.00"}), "10", "150.00")
        ask = str(Decimal(bid) + Decimal("0.02"))

        # when two quotes touch it before the venue has said anything
        with Ticker.opened(world.market) as ticker:
            states = [*ticker.tick(STOCK, bid, ask), *ticker.tick(STOCK, bid, ask)]

        # then
        (order,) = closing_orders(world, user)
        assert states == ["routed", "idle"]
        assert (order["status"], order["component_name"]) == ("pending_new", level)
        world.fill(world.leased(user, order["id"]), "10", bid)
        assert open_quantities(world, user) == {}

    def test_what_is_on_its_way_out_is_no_trade_of_its_owner(self, world: VenueWorld) -> None:
        # given who may trade twice a day, and has done so once
        user = world.market.user(risk={"daily_trade_limit": 2})
        world.fill(world.sent(user, stop_loss="145.00"), "10", "150.00")
        with Ticker.opened(world.market) as ticker:
            assert ticker.tick(STOCK, "144.00", "144.02") == ["routed"]

        # when / then
        assert [world.accept(user)["outcome"] for _ in range(2)] == ["pending_new", "denied"]


class TestWindDown:
    def test_it_sends_one_order_a_position_and_waits_for_the_venue(self, world: VenueWorld, officer: Officer) -> None:
        # given a position at the venue, one here, and an order that may still open another one there
        user = world.market.user()
        held_at_venue(world, user)
        world.market.trade(user)
        opening = world.sent(user, symbol=PAIR, quantity="1")
        named = {"account_id": str(user.account_id)}
        officer.set_state("account", "halted", **named)
        started = officer.wind_down("account", **named)["answer"]["wind_down_id"]

        # when
        (claimed,) = officer.claim()
        steps = [officer.step(claimed) for _ in range(3)]

        # then one order is sent, and the account waits for it
        (order,) = [row for row in closing_orders(world, user) if row["symbol"] == STOCK]
        assert [step["state"] for step in steps] == ["more", "more", "waiting"]
        assert [step["order_id"] for step in steps] == [str(order["id"]), None, None]
        assert (order["status"], order["component_name"]) == ("pending_new", "wind_down")
        assert progress(officer, started) == (1, 1, False)

        # and when the venue has filled both, what was opened is closed as well
        world.fill(world.leased(user, order["id"]), "10", "149.98")
        world.fill(opening, "1", "1.1002")
        assert work_again(world, officer) == ["more", "waiting"]
        (last,) = [row for row in closing_orders(world, user) if row["symbol"] == PAIR]
        world.fill(world.leased(user, last["id"]), "1", "1.1000")
        assert work_again(world, officer) == ["done"]
        assert (open_quantities(world, user), progress(officer, started)) == ({}, (1, 2, True))

    def test_an_account_that_has_only_an_order_on_its_way_is_one_of_them(
        self, world: VenueWorld, officer: Officer
    ) -> None:
        user = world.market.user()
        opening = world.sent(user)
        named = {"account_id": str(user.account_id)}
        officer.set_state("account", "halted", **named)

        assert officer.wind_down("account", "cancel_orders", **named)["answer"]["accounts"] == 0
        assert officer.wind_down("account", **named)["answer"]["accounts"] == 1
        assert officer.work() == ["waiting"]
        world.store.end(opening, "rejected", code="VENUE_REJECTED", reason="no", retry_attempt=0)
        assert work_again(world, officer) == ["done"]

    def test_what_is_on_its_way_for_another_symbol_is_none_of_it(self, world: VenueWorld, officer: Officer) -> None:
        # given something of a pair that is traded here, and an order for shares at the venue
        user = world.market.user()
        world.market.trade(user, symbol="GBPUSD")
        world.sent(user)
        officer.set_state("symbol", "halted", symbol="GBPUSD")

        officer.wind_down("symbol", symbol="GBPUSD")

        assert officer.work() == ["more", "done"]
        officer.set_state("symbol", "active", symbol="GBPUSD")


def progress(officer: Officer, wind_down_id: str) -> tuple[int, int, bool]:
    """(positions closed here, sent to venues, finished)."""
    row = officer.states.execute("SELECT get_wind_down(%s)", (wind_down_id,)).fetchone()
    assert row is not None
    return row[0]["positions_closed"], row[0]["positions_sent"], row[0]["finished"]


def work_again(world: VenueWorld, officer: Officer) -> list[str]:
    """Work off what is due, a minute later."""
    world.market.execute("UPDATE wind_down_accounts SET due_at = clock_timestamp() WHERE done_at IS NULL")
    return officer.work()
