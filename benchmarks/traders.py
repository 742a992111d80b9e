"""Orders a second and how long each takes, over HTTP, with 1, 16 and 100 traders who order without pause.

Each trader is a process with an account, a token and a connection of its own, on the local system with its four
workers. The accounts have no limit of their own, so that the address's alone is counted. An order that was not executed
is counted, and fails the benchmark at its end.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized

from benchmarks.http_client import OrderClient
from benchmarks.rounds import Slice, Work, run_slice, table
from benchmarks.running_system import load_tokens, running_system

TRADERS = (1, 16, 100)
# A load lasts so many slices of the other benchmarks, 10 s by default.
SLICES = 5


@dataclass(frozen=True, slots=True)
class Load:
    """What so many traders got, and how many of their orders were not executed."""

    traders: int
    measured: Slice
    errors: int

    def milliseconds(self, percent: float) -> str:
        """A percentile of an order's time."""
        return f"{self.measured.percentile(percent) * 1000:.1f}"


def trading_work(url: str, tokens: Sequence[str], errors: "Synchronized[int]") -> Work:
    """Orders of one trader a client; failures are counted in `errors`."""

    def work(number: int) -> Callable[[], None]:
        clients = [OrderClient(url, tokens[number])]

        def repeat() -> None:
            try:
                clients[0].order()
            except (RuntimeError, OSError):
                with errors.get_lock():
                    errors.value += 1
                clients[0] = OrderClient(url, tokens[number])

        return repeat

    return work


def run(rounds: int, seconds: float) -> None:  # noqa: ARG001 - one long load each in place of rounds
    """Measure and print; RuntimeError when an order was not executed."""
    with running_system(load_accounts=max(TRADERS)) as system:
        tokens = load_tokens(system, max(TRADERS))
        loads: list[Load] = []
        for traders in TRADERS:
            errors = multiprocessing.get_context("fork").Value("i", 0)
            measured = run_slice(trading_work(system.api_url, tokens, errors), traders, seconds * SLICES)
            loads.append(Load(traders, measured, errors.value))
    _report(loads, seconds * SLICES)
    if any(load.errors for load in loads):
        raise RuntimeError("orders were not executed")


def _report(loads: Sequence[Load], seconds: float) -> None:
    rows = [
        (
            str(load.traders),
            f"{load.measured.rate:.0f}",
            *(load.milliseconds(percent) for percent in (50, 95, 99)),
            str(load.errors),
        )
        for load in loads
    ]
    header = ("traders", "orders a second", "p50 ms", "p95 ms", "p99 ms", "errors")
    table(f"Concurrent traders over HTTP, {seconds:g} s each", header, rows)
    fewer, more = loads[-2], loads[-1]
    rate = more.measured.rate / fewer.measured.rate
    wait = more.measured.percentile(50) / fewer.measured.percentile(50)
    print(
        f"{more.traders} traders get {rate:.2f} times the orders a second of {fewer.traders}; an order takes "
        f"{wait:.1f} times as long.",
        flush=True,
    )
