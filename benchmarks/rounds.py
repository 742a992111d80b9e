"""Interleaved slices: every variant runs in every round, so that a machine whose speed moves hits all alike."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

ROUNDS = 7
SLICE_SECONDS = 2.0

type Work = Callable[[int], Callable[[], None]]
"""Given the number of a client, what it repeats; called in the client's own process."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations a second of one variant, one figure a round."""

    name: str
    rates: list[float]


def measure(
    variants: Mapping[str, Work], *, clients: int, rounds: int = ROUNDS, seconds: float = SLICE_SECONDS
) -> list[Rates]:
    """Run each variant for `seconds` in each of `rounds` rounds with `clients` processes at once."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        names = list(variants)
        # The order turns from round to round, so that no variant always runs after the same one.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            measured[name].append(_slice(variants[name], clients, seconds))
    return [Rates(name, rates) for name, rates in measured.items()]


def report(title: str, measured: Sequence[Rates], base: str, aims: Mapping[str, float]) -> None:
    """Print each variant's rate and its ratio to `base`: the median of the rounds' ratios, and their spread."""
    print(f"\n{title}")
    print(f"  {'variant':<28}{'median/s':>10}{'ratio':>8}{'lowest':>8}{'highest':>9}   aim")
    reference = next(rates for rates in measured if rates.name == base).rates
    for each in measured:
        ratios = [rate / other for rate, other in zip(each.rates, reference, strict=True)]
        aim = f"{aims[each.name]:.2f}" if each.name in aims else "-"
        print(
            f"  {each.name:<28}{statistics.median(each.rates):>10.0f}{statistics.median(ratios):>8.2f}"
            f"{min(ratios):>8.2f}{max(ratios):>9.2f}   {aim}"
        )


def _slice(work: Work, clients: int, seconds: float) -> float:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(clients + 1)
    counts = context.SimpleQueue()
    processes = [
        context.Process(target=_client, args=(work, number, barrier, seconds, counts)) for number in range(clients)
    ]
    for process in processes:
        process.start()
    barrier.wait(timeout=60)
    rates = [counts.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def _client(
    work: Work, number: int, barrier: Barrier, seconds: float, counts: "multiprocessing.SimpleQueue[float]"
) -> None:
    repeat = work(number)
    repeat()
    barrier.wait(timeout=60)
    started = time.perf_counter()
    done = 0
    while time.perf_counter() - started < seconds:
        repeat()
        done += 1
    counts.put(done / (time.perf_counter() - started))
