"""Many callers at the same moment: one key is one order, margin is spent once, and nobody waits in a circle."""

import threading
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from psycopg import sql

from tests.kit.builders import User, order_request
from tests.kit.fault_runs import (
    LONG,
    MARKET_ORDER,
    OPERATIONS,
    RESTING_ORDER,
    SHORT,
    FaultRun,
    Operation,
    ProcedureClient,
    bracket,
    closing,
    order_of_any_type,
    pair,
)
from tests.kit.gateway import eventually
from tests.kit.linked import bracket_request, leg
from trading.errors import ErrorCode, TradingError
from trading.store.database import ATTEMPTS_MAX, Database

CALLERS = 50
# 8.5 lots of EURUSD at about 1.1003 take 9,352.55 of margin and lose about 255 by the spread: 100,000 carry ten, and
# 107,000 carry eleven: 11 x 9,608 = 105,688, but not twelve: 12 x 9,353 = 112,236.
BALANCE = 107_000
AFFORDABLE = 11
LOAD_CLIENTS = 8
LOAD_ORDERS = 400


def large_order(client: ProcedureClient) -> dict[str, object]:
    return order_request(client.user, side="buy", quantity="8.5")


def large_limit(client: ProcedureClient) -> dict[str, object]:
    return large_order(client) | {"order_type": "limit", "limit_price": "1.1005"}


def large_bracket(client: ProcedureClient) -> dict[str, object]:
    return bracket_request(client.user, leg(order_type="market", limit_price=None, quantity="8.5"))


# Eight lots of EURUSD take 8,800 of margin; a fall by 100 pips leaves 2,000 of 10,000.
HELD = 8
OPENERS = 16
STEPS = 8
CLOSED_ALREADY = frozenset({ErrorCode.CONFLICT})
WAITING = [operation for operation in OPERATIONS if operation.draw in (order_of_any_type, pair, bracket)]
WAITERS_OF_ORDERS = """
    SELECT pid FROM pg_locks JOIN pg_database AS d ON d.oid = database
    WHERE NOT granted AND relation = 'orders'::regclass AND d.datname = current_database()
"""
# What spends margin, each raced against itself.
SPENDING = {
    "open": Operation("execute_order_atomic", large_order),
    "a limit that the quote of now touches": Operation("place_order", large_limit),
    "the entry of a bracket": Operation("place_linked_orders", large_bracket, makes=3),
}


def callers(run: FaultRun, user: User, count: int, operation: Operation = MARKET_ORDER) -> list[ProcedureClient]:
    """Clients of one account, connected already."""
    clients = [run.client(user, [operation]) for _ in range(count)]
    for client in clients:
        client.database.fetch_one("SELECT 1 AS one")
    return clients


def test_fifty_callers_of_one_key_and_one_who_differs(run: FaultRun) -> None:
    """F4, of every operation."""
    user = run.user()
    same = callers(run, user, CALLERS)
    for operation in OPERATIONS:
        name = operation.draw.__name__
        # given fifty callers of one request, all past their first look, and then one with another under the same key
        (other,) = callers(run, user, 1)
        for number, makes in enumerate((LONG, SHORT, RESTING_ORDER)):  # something to close, something to cancel
            assert other.send(f"before {name} {number}", makes)
        before = run.value("SELECT count(*) FROM orders")
        request = operation.draw(other) | {"idempotency_key": name, "request_hash": "the same"}
        differing = request | {"request_hash": "another"}
        with run.held(user) as held:
            held.begin(*(partial(client.database.call, operation.procedure, request) for client in same))
            held.begin(partial(other.database.call, operation.procedure, differing))
        # when the account is free
        outcomes = held.outcomes

        # then one made the order, all others of the same request hear of it word for word, the other one is refused
        refused = [outcome for outcome in outcomes if isinstance(outcome, TradingError)]
        answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert [error.code for error in refused] == [ErrorCode.IDEMPOTENCY_KEY_REUSED], name
        assert Counter(answer["replayed"] for answer in answers) == {False: 1, True: CALLERS - 1}, name
        assert all(answer["answer"] == answers[0]["answer"] for answer in answers), name
        assert run.value("SELECT count(*) FROM orders") == before + operation.makes, name
    run.settle()


def until_answered(client: ProcedureClient, number: int) -> Mapping[str, Any]:
    """The outcome, under the same key again for as long as the database gives up on a queue that is too long for it."""
    while (answer := client.attempt(f"key-{number}", number)) is None:
        pass
    return answer


@pytest.mark.parametrize("operation", SPENDING.values(), ids=SPENDING.keys())
def test_fifty_callers_spend_the_margin_once(run: FaultRun, operation: Operation) -> None:
    """F5."""
    # given margin for exactly eleven
    user = run.user(balance=BALANCE)
    clients = callers(run, user, CALLERS, operation)

    # when fifty come at once, each with a key of its own
    answers = run.at_once([partial(until_answered, client, number) for number, client in enumerate(clients)])

    # then eleven are executed, and the others are told what is missing
    outcomes = Counter(answer.get("code", answer["outcome"]) for answer in answers)
    assert Counter({"filled": outcomes.pop("placed", 0)}) + outcomes == {
        "filled": AFFORDABLE,
        "INSUFFICIENT_MARGIN": CALLERS - AFFORDABLE,
    }
    run.settle()


def test_fifty_callers_close_a_position_once(run: FaultRun) -> None:
    """F5: I2, each with a key of its own."""
    # given a position
    user = run.user()
    clients = callers(run, user, CALLERS)
    assert clients[0].send("opened", MARKET_ORDER)
    whole = Operation("close_position", lambda _client: closing(clients[0]) | {"quantity": None}, CLOSED_ALREADY)

    # when fifty close it at once
    answers = run.at_once([partial(client.send, f"key-{n}", whole) for n, client in enumerate(clients)])

    # then one did, and the others are told that it is not open any more
    outcomes = Counter(answer.get("refused", answer.get("outcome")) for answer in answers)
    assert outcomes == {"filled": 1, ErrorCode.CONFLICT: CALLERS - 1}
    assert run.value("SELECT count(*) FROM positions WHERE status = 'open'") == 0
    run.settle()


def test_opening_closing_and_stopping_out_at_once(run: FaultRun) -> None:
    """F5: each position ends once, by its owner, a trigger or the platform, and what is opened has its margin."""
    # given positions whose losses took the account below its stop-out level, half of them beyond their stop loss, and
    # orders that the same price touches
    user = run.user(balance=10_000)
    openers, closers = callers(run, user, OPENERS), callers(run, user, 2 * HELD)
    lot = order_request(user, side="buy", quantity="1")
    lots = [Operation("execute_order_atomic", lambda _, s=stop: lot | s) for stop in ({}, {"stop_loss": "1.0950"})]
    held = [openers[0].send(f"held-{number}", lots[number % 2]) for number in range(HELD)]
    for number, waits in enumerate(WAITING):
        assert openers[0].send(f"waits-{number}", waits)
    positions = [answer["position_id"] for answer in held if answer]
    run.record("EURUSD", "1.0900", "1.0902")

    def close_of(position_id: str) -> Operation:
        return Operation(
            "close_position", lambda client: closing(client) | {"position_id": position_id}, CLOSED_ALREADY
        )

    def step() -> dict[str, object]:
        request = {"version": 1, "user_id": user.user_id, "account_id": user.account_id, "request_id": "raced"}
        risk = Database(lambda: run.database.url_for("function_risk"))
        try:
            return risk.call("stop_out_step", request)
        finally:
            risk.close()

    # when its owner opens and closes while the platform closes, all at once
    calls = [
        *(partial(client.send, f"open-{n}", MARKET_ORDER) for n, client in enumerate(openers)),
        *(partial(client.send, f"close-{n}", close_of(positions[n % HELD])) for n, client in enumerate(closers)),
        *[step] * STEPS,
        *[run.execute_touched] * 2,
    ]
    run.dice.shuffle(calls)
    told = run.at_once(calls)
    assert all(answer for answer in told if not isinstance(answer, list))

    # then what was touched has been looked at, the platform has nothing left to do, and the checker finds no position
    # closed beyond its quantity
    assert run.value("SELECT count(*) FROM trigger_queue") == 0
    while step()["state"] == "more":
        pass
    assert step()["state"] == "recovered"
    assert run.value("SELECT count(*) FROM positions WHERE status = 'closed'") > 0
    run.settle()


@pytest.mark.parametrize("position_mode", ["hedging", "netting"])
def test_fifty_callers_of_every_operation_on_one_account(run: FaultRun, position_mode: str) -> None:
    """F5: whatever comes first, the books agree and no margin is spent twice."""
    # given an account that carries a few of the orders
    user = run.user(position_mode=position_mode, balance=500)
    clients = [run.client(user) for _ in range(CALLERS)]

    # when all come at once, twice over
    for turn in range(2):
        with run.ticking():
            answers = run.at_once(
                [
                    lambda c=client, n=number, t=turn: c.attempt(f"key-{t}-{n}", n)
                    for number, client in enumerate(clients)
                ]
            )
        assert [answer for answer in answers if not isinstance(answer, dict)] == []

    # then
    statuses = {status for (status,) in run.execute("SELECT DISTINCT status FROM orders")}
    assert statuses > {"filled", "denied"}
    run.settle()


def test_a_mixed_load_makes_no_deadlock(run: FaultRun) -> None:
    """F6."""
    # given every operation on accounts of every kind, some of them shared
    with run.ticking(), run.load(LOAD_CLIENTS).running() as load:
        load.wait_for_orders(LOAD_ORDERS)

    # then nobody's attempt was lost, and the server saw no deadlock
    assert [one for one in load.acknowledged if one.lost_attempts] == []
    run.settle(load, deadlocks=0)


def test_an_order_that_loses_a_deadlock_is_repeated_under_its_key(
    run: FaultRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F6, where somebody locks in the other order: the rival holds the table and then wants the account."""
    # given time for another attempt: the server takes a second of the two to find the circle, and more under a load
    monkeypatch.setattr("trading.store.database.RETRY_SECONDS_MAX", 60.0)
    # and an order that holds its account and waits for the rival
    user = run.user()
    (client,) = callers(run, user, 1)
    answers: list[Any] = []
    order = threading.Thread(target=lambda: answers.append(client.attempt("raced", 0)))
    with run.database.connect(autocommit=False) as rival:
        rival.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        order.start()
        # The rival looks itself, which is quick: the order looks for a circle once, a second after it began to wait.
        eventually(lambda: rival.execute(WAITERS_OF_ORDERS).fetchall(), what="an order that waits")

        # when the rival wants the account too: the order has waited longer, so it is the one that the server ends
        rival.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (user.user_id,))
        rival.rollback()
        order.join()

    # then it was executed by another attempt
    assert answers[0]["outcome"] == "filled"
    assert run.value("SELECT count(*) FROM orders") == 1
    run.settle(deadlocks=1)


@pytest.mark.parametrize("sqlstate", ["40P01", "40001", "55P03"])
def test_a_lost_race_is_repeated_so_often_and_no_more(
    run: FaultRun, sqlstate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F6, F7: attempts are counted by a sequence, which a rollback does not turn back."""
    # given a server that lets the transaction of an order fail, at first as often as there are attempts
    pauses: list[float] = []
    monkeypatch.setattr("trading.store.database.time.sleep", pauses.append)
    (client,) = callers(run, run.user(), 1)
    fail_orders(run, sqlstate, times=ATTEMPTS_MAX)

    # when
    given_up = client.attempt("raced", 0)

    # then the caller is told to come again, nothing is kept, and pauses are short and not alike
    assert given_up is None
    assert run.value("SELECT last_value FROM attempts") == ATTEMPTS_MAX
    assert len(pauses) == ATTEMPTS_MAX - 1
    assert len(set(pauses)) == len(pauses)
    assert all(0 <= pause < 0.2 for pause in pauses)
    assert run.value("SELECT count(*) FROM orders") + run.value("SELECT count(*) FROM idempotency_keys") == 1

    # and when the last attempt succeeds
    run.execute(f"ALTER SEQUENCE attempts RESTART; {failing_trigger(sqlstate, ATTEMPTS_MAX - 1)}")
    answer = client.attempt("raced", 0)

    # then there is one order, under the same key
    assert answer is not None
    assert run.value("SELECT last_value FROM attempts") == ATTEMPTS_MAX
    assert run.value("SELECT array_agg(id::text) FROM orders") == [answer["order_id"]]
    run.settle()


def fail_orders(run: FaultRun, sqlstate: str, times: int) -> None:
    """Let the first `times` transactions that insert an order fail with `sqlstate`."""
    run.execute("CREATE SEQUENCE attempts; GRANT USAGE ON SEQUENCE attempts TO trading_procedures")
    run.execute(failing_trigger(sqlstate, times))
    run.execute("CREATE TRIGGER fail BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION fail()")


def failing_trigger(sqlstate: str, times: int) -> str:
    return f"""
    CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('attempts') <= {times} THEN RAISE EXCEPTION 'failed' USING ERRCODE = '{sqlstate}'; END IF;
        RETURN NEW;
    END
    $$;
    GRANT EXECUTE ON FUNCTION fail() TO PUBLIC
    """


@pytest.mark.parametrize(
    ("setting", "milliseconds", "pauses_max"), [("lock_timeout", 100, ATTEMPTS_MAX - 1), ("statement_timeout", 150, 0)]
)
def test_an_account_that_stays_locked_is_given_up_and_found_unchanged(
    run: FaultRun, setting: str, milliseconds: int, pauses_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F7. A lock's timeout is tried again while there is time; a statement that took all its time is not."""
    # given limits that a test can wait for, and somebody who holds the account
    pauses: list[float] = []
    monkeypatch.setattr("trading.store.database.time.sleep", pauses.append)
    run.execute(
        sql.SQL("ALTER ROLE function_trader IN DATABASE {} SET {} = {}")
        .format(sql.Identifier(run.database.name), sql.Identifier(setting), sql.Literal(milliseconds))
        .as_string()
    )
    user = run.user()
    (client,) = callers(run, user, 1)
    with run.database.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (user.user_id,))
        # when
        refused = client.attempt("held", 0)
        with pytest.raises(TradingError) as caught:
            client.call("held")
        holder.rollback()

    # then it is a 503 to be repeated
    assert refused is None
    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.DATABASE_UNAVAILABLE, 1)
    assert len(pauses) == 2 * pauses_max
    assert run.value("SELECT count(*) FROM orders") == 0
    # and the same key goes through when the account is free
    assert client.call("held")["replayed"] is False
    run.settle()
