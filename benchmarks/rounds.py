"""Interleaved slices: every variant runs in every round, so that a machine whose speed moves hits all alike."""

import multiprocessing
import resource
import statistics
import time
import traceback
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError

ROUNDS = 7
SLICE_SECONDS = 2.0
# Imports, connections and first plans of all clients, before their clocks start.
READY_SECONDS = 120.0
WARM_UPS = 6

type Work = Callable[[int], Callable[[], object]]
"""Given the number of a client, what it repeats; called in the client's own process. A failure has to raise."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What all clients together did in one slice.

    `rate` is in operations a second, `latencies` holds the seconds of each, ascending; `client_cpu` is the CPU time, in
    seconds, that one operation took in the client's process, which for a handler called in process is the handler.
    """

    rate: float
    latencies: Sequence[float]
    client_cpu: float

    def percentile(self, percent: float) -> float:
        """The latency, in seconds, that `percent` of the operations did not exceed."""
        return percentile(self.latencies, percent)


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant, one slice a round."""

    name: str
    slices: list[Slice]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A variant against the base: the median of the rounds' ratios, and the lowest and highest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float], base: Sequence[float]) -> "Ratio":
        """The ratios of `values` to `base`, round by round."""
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of what is sorted already."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


def measure(
    variants: Mapping[str, Work], *, clients: int, rounds: int = ROUNDS, seconds: float = SLICE_SECONDS
) -> list[Measured]:
    """Run each variant for `seconds` in each of `rounds` rounds with `clients` processes at once."""
    measured: dict[str, list[Slice]] = {name: [] for name in variants}
    for turn in range(rounds):
        names = list(variants)
        # The order turns from round to round, so that no variant always runs after the same one.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            measured[name].append(run_slice(variants[name], clients, seconds))
    return [Measured(name, slices) for name, slices in measured.items()]


def report(title: str, measured: Sequence[Measured], base: str, aims: Mapping[str, float]) -> None:
    """Print each variant's rate and its ratio to `base`, as a table of Markdown."""
    rows: list[Sequence[str]] = []
    reference = [each.rate for each in _named(measured, base).slices]
    for each in measured:
        rates = [slice_.rate for slice_ in each.slices]
        median = statistics.median(slice_.percentile(50) for slice_ in each.slices)
        cpu = statistics.median(slice_.client_cpu for slice_ in each.slices)
        ratio = Ratio.of(rates, reference)
        numbers = (f"{statistics.median(rates):.0f}", f"{median * 1000:.2f}", f"{cpu * 1000:.2f}")
        rows.append((each.name, *numbers, str(ratio), _aim("≥", aims.get(each.name))))
    table(title, ("variant", "a second", "p50 ms", "client CPU ms", "ratio (lowest–highest)", "aim"), rows)


def report_latency(title: str, measured: Sequence[Measured], base: str, aims: Mapping[str, float]) -> None:
    """Print each variant's median latency and its ratio to that of `base`, as a table of Markdown."""
    rows: list[Sequence[str]] = []
    reference = [each.percentile(50) for each in _named(measured, base).slices]
    for each in measured:
        medians = [slice_.percentile(50) for slice_ in each.slices]
        cpu = statistics.median(slice_.client_cpu for slice_ in each.slices)
        numbers = (f"{statistics.median(medians) * 1000:.2f}", f"{cpu * 1000:.2f}")
        rows.append((each.name, *numbers, str(Ratio.of(medians, reference)), _aim("≤", aims.get(each.name))))
    table(title, ("variant", "p50 ms", "client CPU ms", "ratio (lowest–highest)", "aim"), rows)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of Markdown whose columns line up."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    print(f"\n{title}\n")
    for line in (header, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) + " |")
    print(flush=True)


def run_slice(work: Work, clients: int, seconds: float) -> Slice:
    """Let `clients` processes repeat their work for `seconds` at once; RuntimeError with the trace of a failed one."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(clients + 1)
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_client, args=(work, number, barrier, seconds, results)) for number in range(clients)
    ]
    for process in processes:
        process.start()
    try:
        barrier.wait(timeout=READY_SECONDS)
    except BrokenBarrierError:
        _end(processes)
        raise RuntimeError(f"a client did not get ready:\n{'' if results.empty() else results.get()}") from None
    done = [results.get() for _ in processes]
    _end(processes)
    failed = [result for result in done if isinstance(result, str)]
    if failed:
        raise RuntimeError(f"a client failed:\n{failed[0]}")
    latencies = sorted(latency for each in done for latency in each[1])
    return Slice(sum(each[0] for each in done), latencies, sum(each[2] for each in done) / len(latencies))


def _client(
    work: Work, number: int, barrier: Barrier, seconds: float, results: "multiprocessing.SimpleQueue[object]"
) -> None:
    try:
        repeat = work(number)
        for _ in range(WARM_UPS):
            repeat()
        barrier.wait(timeout=READY_SECONDS)
        results.put(_timed(repeat, seconds))
    except BrokenBarrierError:
        pass  # another one failed, and says why
    except BaseException:  # noqa: BLE001 - the parent waits for an answer whatever happens
        results.put(traceback.format_exc())
        barrier.abort()


def _timed(repeat: Callable[[], object], seconds: float) -> tuple[float, "array[float]", float]:
    """The rate, the latencies and the CPU time of repeating for `seconds`."""
    latencies = array("d")
    cpu = _cpu_seconds()
    started = now = time.perf_counter()
    while now - started < seconds:
        repeat()
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    return len(latencies) / (now - started), latencies, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.join(READY_SECONDS)
        if process.is_alive():
            process.terminate()


def _named(measured: Sequence[Measured], name: str) -> Measured:
    return next(each for each in measured if each.name == name)


def _aim(sign: str, value: float | None) -> str:
    return "-" if value is None else f"{sign} {value:.2f}"
