"""execute_order_atomic against the reference transaction: spread over accounts, replayed, and on one hot account."""

import random
import uuid
from collections.abc import Sequence

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.market import REFERENCE, make_accounts, on_connection, prepared_market, reference_work
from benchmarks.rounds import Work, measure, report
from tests.kit.builders import User

ACCOUNTS = 2000
CLIENTS = (4, 8)
PROCEDURE, REPLAY, HOT = "execute_order_atomic", "replay of a known key", "one hot account"
AIMS = {PROCEDURE: 0.75, REPLAY: 5.0}
HOT_AIMS = {HOT: 0.40}
FILLED = "filled"
CALL = "SELECT execute_order_atomic(%s) -> 'answer' ->> 'outcome'"


def order_of(user: User, key: str) -> dict[str, object]:
    """A market order of the smallest lot."""
    return {
        "version": 1,
        "user_id": str(user.user_id),
        "account_id": str(user.account_id),
        "symbol": "EURUSD",
        "order_type": "market",
        "side": "buy",
        "quantity": "0.01",
        "time_in_force": "gtc",
        "idempotency_key": key,
        "idempotency_key_days": 30,
        "request_hash": key,
        "request_id": key,
        "ip_address": "192.0.2.1",
        "user_agent": "benchmark",
        "email": user.email,
    }


def variants(url: str, referred: Sequence[User], spread: Sequence[User], hot: User) -> dict[str, Work]:
    """What is compared; each works on a connection of its own."""
    known = order_of(spread[0], str(uuid.uuid4()))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CALL, (Jsonb(known),))

    def spread_order(chance: random.Random) -> tuple[object, ...]:
        return (Jsonb(order_of(chance.choice(spread), str(uuid.uuid4()))),)

    def hot_order(_chance: random.Random) -> tuple[object, ...]:
        return (Jsonb(order_of(hot, str(uuid.uuid4()))),)

    return {
        REFERENCE: reference_work(url, referred),
        PROCEDURE: on_connection(url, CALL, spread_order, FILLED),
        REPLAY: on_connection(url, CALL, lambda _chance: (Jsonb(known),), FILLED),
        HOT: on_connection(url, CALL, hot_order, FILLED),
    }


def run(rounds: int, seconds: float) -> None:
    """Measure and print."""
    with prepared_market() as market:
        url = market.database.url_for("function_trader")
        with market.database.connect() as owner:
            referred, spread = make_accounts(owner, ACCOUNTS), make_accounts(owner, ACCOUNTS)
            hot = make_accounts(owner, len(CLIENTS), "netting")
        for clients, account in zip(CLIENTS, hot, strict=True):
            compared = variants(url, referred, spread, account)
            measured = measure(compared, clients=clients, rounds=rounds, seconds=seconds)
            title = f"execute_order_atomic, {clients} clients, {rounds} rounds of {seconds:g} s"
            report(title, measured, REFERENCE, AIMS)
            report("The hot account against the spread ones", measured, PROCEDURE, HOT_AIMS)
