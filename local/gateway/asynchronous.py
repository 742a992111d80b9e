"""Invocations that nobody waits for: retried as the function says, then given to its failure queue."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from local.gateway.invocations import Kind, Outcome
from local.gateway.pools import Pool
from local.gateway.queues import Queue

# Lambda waits a minute before the first retry and two before the second.
RETRY_SECONDS = (60.0, 120.0)


async def invoke_asynchronously(pool: Pool, event: bytes, queues: Mapping[str, Queue]) -> Outcome:
    """Invoke until it succeeds, its retries are used up or it grew too old. The last outcome."""
    loop = asyncio.get_running_loop()
    end = loop.time() + pool.spec.event_age_seconds
    attempts = 0
    while True:
        outcome = await pool.invoke(event, wait_seconds=max(end - loop.time(), 0.0))
        attempts += 1
        if outcome.kind is Kind.ANSWERED:
            return outcome
        wait = RETRY_SECONDS[min(attempts, len(RETRY_SECONDS)) - 1]
        exhausted = attempts > pool.spec.retries or outcome.kind is Kind.NO_ROOM
        if exhausted or loop.time() + wait > end:
            _give_up(pool, event, queues, outcome, attempts)
            return outcome
        await asyncio.sleep(wait)


def _give_up(pool: Pool, event: bytes, queues: Mapping[str, Queue], outcome: Outcome, attempts: int) -> None:
    if pool.spec.failure_queue is None:
        return
    condition = "EventAgeExceeded" if outcome.kind is Kind.NO_ROOM else "RetriesExhausted"
    record = {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": outcome.invocation_id,
            "functionArn": f"{pool.spec.arn}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": attempts,
        },
        "requestPayload": json.loads(event),
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": json.loads(outcome.body),
    }
    queues[pool.spec.failure_queue].send(json.dumps(record), {})
