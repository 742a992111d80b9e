"""Whether each thing that an order needs answers, and how fast."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trading.observability import logger


class UnhealthyError(Exception):
    """A check failed; the message is shown to anybody, so it names nothing of the inside."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check; latency in whole milliseconds."""

    status: Literal["ok", "error"]
    latency: int
    details: str

    def as_body(self) -> dict[str, Any]:
        """The check as the answer shows it."""
        return {"status": self.status, "latency": self.latency, "details": self.details}


type Probe = Callable[[], str]
"""Returns what there is to say when all is well, and raises when it is not."""


def run_checks(probes: Mapping[str, Probe]) -> dict[str, Check]:
    """Run each probe; whatever a probe raises is a failed check, never a failed answer."""
    return {name: _run(name, probe) for name, probe in probes.items()}


def judge_prices(feed: Mapping[str, int | None]) -> str:
    """What to say of {open, fresh, newest_age_ms}; UnhealthyError when markets are open and no quote is fresh."""
    opened, fresh = feed["open"] or 0, feed["fresh"] or 0
    if opened == 0:
        return "All markets are closed."
    if fresh == 0:
        raise UnhealthyError(f"None of {opened} open symbols has a fresh quote.")
    return f"{fresh} of {opened} open symbols have a fresh quote, the newest is {feed['newest_age_ms']} ms old."


def _run(name: str, probe: Probe) -> Check:
    started_at = time.perf_counter()
    try:
        status, details = "ok", probe()
    except UnhealthyError as error:
        status, details = "error", str(error)
    except Exception:  # noqa: BLE001 - a probe may fail in any way, and saying so is this module's purpose
        logger().exception("health check failed", extra={"check": name})
        status, details = "error", "It does not answer."
    return Check(status, round((time.perf_counter() - started_at) * 1000), details)
