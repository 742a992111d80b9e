"""The whole order handler in process, with a relay awake and with the queue send, against the reference transaction.

`handler` of functions/execute_order gets events of API Gateway and a context as Lambda gives it, on a PostgreSQL that
syncs and a Redis. The queue is the local gateway's SQS API, which has a share of the same cores; nobody receives from
it. What the handler logs goes to a file. Workers know their traders' tokens, as they do after each one's first order.
"""

import itertools
import json
import os
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import redis

from benchmarks.local_queue import LocalQueue, serving_queue
from benchmarks.market import REFERENCE, Market, make_accounts, prepared_market, reference_work
from benchmarks.rounds import Work, measure, report, report_latency
from tests.kit.builders import User
from tests.kit.functions import Context, bearer, function_variables, http_event, load_function, make_token
from trading.edge.gate import authenticator
from trading.edge.rate_limit import RELAY_AWAKE_KEY

WORKERS = 4
# Each order counts against its trader's limit of 100 a minute, so there have to be many.
TRADERS_A_WORKER = 250
ROUTE = "POST /functions/v1/execute-order"
AWAKE, QUEUED = "handler, relay awake", "handler, queue send"
RATE_AIMS = {AWAKE: 0.50, QUEUED: 0.50}
LATENCY_AIMS = {AWAKE: 1.80, QUEUED: 1.80}


def handler_work(variables: Mapping[str, str], log: Path, users: Sequence[User], *, relay_awake: bool) -> Work:
    """Has the handler execute orders of `users`, an equal share for each worker; `log` takes what it prints."""

    def work(number: int) -> Callable[[], None]:
        become_function(variables, log)
        set_relay_sign(variables["REDIS_URL"], present=relay_awake)
        handler = load_function("execute_order")
        own = users[number * TRADERS_A_WORKER : (number + 1) * TRADERS_A_WORKER]
        headers = itertools.cycle([known_headers(user) for user in own])

        def repeat() -> None:
            check_executed(handler(order_event(next(headers)), Context()))

        return repeat

    return work


def become_function(variables: Mapping[str, str], log: Path) -> None:
    """Take a function's environment, and send what is printed to `log`."""
    os.environ.update(variables)
    sys.stdout.flush()
    with log.open("ab") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())


def set_relay_sign(redis_url: str, *, present: bool) -> None:
    """Show or remove the sign of a relay that is awake."""
    with redis.Redis.from_url(redis_url) as client:
        if present:
            client.set(RELAY_AWAKE_KEY, 1)
        else:
            client.delete(RELAY_AWAKE_KEY)


def known_headers(user: User) -> dict[str, str]:
    """The headers of `user`, whose token this process has verified, as it has after their first order."""
    headers = headers_of(user)
    authenticator().identify(headers["authorization"])
    return headers


def headers_of(user: User) -> dict[str, str]:
    """The headers that clients and API Gateway add to an order of `user`."""
    return bearer(make_token(user, tier="platinum", exp=2**31)) | {
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "host": "api.example.com",
        "user-agent": "benchmark/1.0",
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }


def order_event(headers: Mapping[str, str]) -> dict[str, object]:
    """A market order of the smallest lot under a new key."""
    key = str(uuid.uuid4())
    body = (
        '{"symbol":"EURUSD","order_type":"market","side":"buy","quantity":0.01,'
        f'"stop_loss":1.05,"idempotency_key":"{key}"}}'
    )
    return http_event(ROUTE, headers={**headers, "x-request-id": key}, body=body)


def check_executed(answer: Mapping[str, str | int]) -> None:
    """RuntimeError for anything but an order that was executed just now."""
    if answer["statusCode"] != 200 or '"status":"executed"' not in str(answer["body"]):
        raise RuntimeError(f"the order was not executed: {json.dumps(answer)}")


def check_sent(market: Market, queue: LocalQueue, users: Sequence[User]) -> None:
    """RuntimeError unless each executed order of `users` has left its message in the queue."""
    with market.database.connect() as owner:
        statement = "SELECT count(*) FROM orders WHERE account_id = ANY(%s)"
        row = owner.execute(statement, ([user.account_id for user in users],)).fetchone()
    if row is None or row[0] != queue.length() or row[0] == 0:
        raise RuntimeError(f"{row and row[0]} orders were executed, {queue.length()} messages sent")


def run(rounds: int, seconds: float) -> None:
    """Measure the rate with four workers, then the latency with one; print both."""
    with prepared_market() as market, serving_queue() as queue:
        url = market.database.url_for("function_trader")
        with market.database.connect() as owner:
            make = partial(make_accounts, owner, WORKERS * TRADERS_A_WORKER)
            referred, awake, queued = make(), make(), make()
        redis_url = market.servers.redis.url()
        variables = function_variables(market.folder, url, redis_url) | queue.variables
        variables |= {"REDIS_URL": redis_url, "IP_REQUESTS_PER_MINUTE": "1000000", "REDIS_TIMEOUT_MS": "150"}
        log = market.folder / "handler.log"
        compared = {
            REFERENCE: reference_work(url, referred),
            AWAKE: handler_work(variables, log, awake, relay_awake=True),
            QUEUED: handler_work(variables, log, queued, relay_awake=False),
        }
        measured = measure(compared, clients=WORKERS, rounds=rounds, seconds=seconds)
        report(
            f"Handler in process, {WORKERS} workers, {rounds} rounds of {seconds:g} s", measured, REFERENCE, RATE_AIMS
        )
        measured = measure(compared, clients=1, rounds=rounds, seconds=seconds)
        title = f"Handler's median latency, one worker, {rounds} rounds of {seconds:g} s"
        report_latency(title, measured, REFERENCE, LATENCY_AIMS)
        check_sent(market, queue, queued)
