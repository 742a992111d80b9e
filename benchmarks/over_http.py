"""Orders through the gateway and awslambdaric over HTTP, against the reference transaction on the same PostgreSQL.

The whole local system runs as `make start` starts it: four workers of execute_order, prices, schedules, and the relay,
which is awake while orders flow. Its feed and its relay take their share of the machine from both sides. Clients are
processes with a kept connection each, too lean to count (see `http_client`).
"""

from collections.abc import Callable, Sequence

import psycopg

from benchmarks.http_client import OrderClient
from benchmarks.market import REFERENCE, install_reference, make_accounts, reference_work
from benchmarks.rounds import Work, measure, report
from benchmarks.running_system import load_tokens, running_system
from tests.kit.local_system import LocalSystem

ACCOUNTS = 500
CLIENTS = (4, 8)
OVER_HTTP = "order over HTTP"
AIMS = {OVER_HTTP: 0.25}


def order_work(url: str, tokens: Sequence[str]) -> Work:
    """Orders over HTTP, each client for one account."""

    def work(number: int) -> Callable[[], object]:
        return OrderClient(url, tokens[number]).order

    return work


def trader_url(system: LocalSystem) -> str:
    """The connection URL of execute_order's role."""
    return (system.state.secrets / "TraderDatabaseSecret").read_text()


def run(rounds: int, seconds: float) -> None:
    """Measure and print."""
    with running_system(load_accounts=max(CLIENTS)) as system:
        with psycopg.connect(system.database_url, autocommit=True) as owner:
            install_reference(owner)
            referred = make_accounts(owner, ACCOUNTS)
        compared = {
            REFERENCE: reference_work(trader_url(system), referred),
            OVER_HTTP: order_work(system.api_url, load_tokens(system, max(CLIENTS))),
        }
        for clients in CLIENTS:
            measured = measure(compared, clients=clients, rounds=rounds, seconds=seconds)
            report(f"Over HTTP, {clients} clients, {rounds} rounds of {seconds:g} s", measured, REFERENCE, AIMS)
