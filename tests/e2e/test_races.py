"""Many callers at the same moment: one key is one order, and no account spends its margin twice."""

import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier

import httpx

from tests.kit.builders import order_body
from tests.kit.local_system import LocalSystem
from tests.kit.traders import EXECUTE_ORDER, HTTP_SECONDS, Trader, Traders, error_of, exact

CALLERS = 50
ORDERS = 200
AFFORDABLE = 10


def at_once(callers: int, call: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """The answers of as many calls, all begun together."""
    start = Barrier(callers)

    def begin(number: int) -> httpx.Response:
        start.wait()
        return call(number)

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(begin, range(callers)))


def crowd(trader: Trader, callers: int) -> httpx.Client:
    """A client of the trader with a connection for every caller."""
    return trader.system.client(
        headers=trader.http.headers,
        limits=httpx.Limits(max_connections=callers),
        timeout=HTTP_SECONDS,
    )


def stored_part(response: httpx.Response) -> bytes:
    """The bytes of `data` or `error` as they were sent; `context` is the request's own."""
    body, context = response.content.split(b',"context":')
    assert context.startswith(b"{")
    return body


def replays(responses: list[httpx.Response]) -> int:
    return sum(response.headers.get("idempotency-replayed") == "true" for response in responses)


def test_fifty_callers_of_one_key_make_one_order(traders: Traders) -> None:
    # given fifty callers with the same order under one key
    trader = traders.new()
    body = order_body()
    with crowd(trader, CALLERS) as client:
        # when all call at once
        responses = at_once(CALLERS, lambda _: client.post(EXECUTE_ORDER, json=body))
        # then all hear the same, byte for byte
        assert {response.status_code for response in responses} == {200}
        assert len({stored_part(response) for response in responses}) == 1
        assert replays(responses) == CALLERS - 1
        assert len({exact(response)["context"]["requestId"] for response in responses}) == CALLERS
        # and there is one order
        assert [str(row["id"]) for row in trader.rows("orders", "id")] == [exact(responses[0])["data"]["order_id"]]
        assert len(trader.rows("fills")) == len(trader.rows("positions")) == 1
        # and another order under the key is refused, in whatever dialect
        reused = client.post(EXECUTE_ORDER, json=body | {"quantity": "0.2"})
        assert (reused.status_code, error_of(reused)["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        rest = client.post("/api/v1/orders", json=body)
        assert (rest.status_code, exact(rest)["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        # but the same number written otherwise is the same order
        again = client.post(EXECUTE_ORDER, json=dict(reversed(body.items())))
        assert stored_part(again) == stored_part(responses[0])
    assert len(trader.rows("orders")) == 1


def test_fifty_callers_of_a_denied_order_hear_the_same_denial(traders: Traders) -> None:
    # given an order that the account cannot carry
    trader = traders.new()
    key = str(uuid.uuid4())
    body = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": 900, "idempotency_key": key}
    with crowd(trader, CALLERS) as client:
        # when fifty send it at once
        responses = at_once(CALLERS, lambda _: client.post(EXECUTE_ORDER, json=body))
    # then it is denied once, and all hear that
    assert {response.status_code for response in responses} == {400}
    assert len({stored_part(response) for response in responses}) == 1
    assert replays(responses) == CALLERS - 1
    error = error_of(responses[0])
    assert error["code"] == "INSUFFICIENT_MARGIN"
    rows = trader.rows("orders", "id, status, failure_code")
    assert [tuple(row.values()) for row in rows] == [
        (uuid.UUID(error["details"]["order_id"]), "denied", "INSUFFICIENT_MARGIN")
    ]
    assert [row["event_type"] for row in trader.rows("events", "event_type", "sequence")] == [
        "account.deposited",
        "order.denied",
    ]


def test_two_hundred_orders_at_once_spend_the_margin_once(local_system: LocalSystem, traders: Traders) -> None:
    """8.5 lots of EURUSD at about 1.1003 take 850,000 / 100 x 1.1003 = 9,352.55 of margin and lose about 255 by the
    spread, so that 100,000 carry ten: 10 x 9,608 = 96,080, and not eleven: 11 x 9,353 = 102,883.
    """
    # given margin for exactly ten
    trader = traders.new()
    local_system.quote("EURUSD", "1.1", "1.1002")
    with crowd(trader, ORDERS) as client:
        # when two hundred orders with keys of their own come at once
        responses = at_once(
            ORDERS,
            lambda number: client.post(
                EXECUTE_ORDER,
                json={
                    "symbol": "EURUSD",
                    "order_type": "market",
                    "side": "buy",
                    "quantity": 8.5,
                    "idempotency_key": f"order-{number}",
                },
            ),
        )
    # then ten are executed and the rest is told what is missing
    outcomes = Counter(
        "executed" if response.status_code == 200 else error_of(response)["code"] for response in responses
    )
    assert outcomes == {"executed": AFFORDABLE, "INSUFFICIENT_MARGIN": ORDERS - AFFORDABLE}
    # and nothing is overdrawn
    account = trader.read("/api/v1/account")
    assert account["open_positions"] == AFFORDABLE
    assert Decimal(account["free_margin"]) >= 0
    # and every denial is kept with what it lacked, in one unbroken order of events
    statuses = Counter(row["status"] for row in trader.rows("orders", "status"))
    assert statuses == {"filled": AFFORDABLE, "denied": ORDERS - AFFORDABLE}
    sequences = [row["sequence"] for row in trader.rows("events", "sequence", "sequence")]
    assert sequences == list(range(1, ORDERS + 2))
