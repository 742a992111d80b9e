"""Getting an account's events to the Redis channel and to each connection, in order, within a time limit."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from trading.cache import Cache, CacheUnavailableError
from trading.events import Event, Frame, UnrenderableError, frames_of, sequence_text, texts_for
from trading.observability import MetricUnit, logger, metrics
from trading.sockets import Outcome, Sockets
from trading.store.relay import Advance, Cursor, Delivered, Stream

# Waits before a connection that answers 429 is tried again; after the last it is cut.
SLOW_WAITS_SECONDS = (0.05, 0.1, 0.2)
# Messages in a row of which nothing is known, after which a connection is cut.
FAILED_ATTEMPTS_MAX = 5
# The log line of a delivery names the causes of the newest events, at most so many.
REQUEST_IDS_LOGGED_MAX = 100
CLOSE_TOO_SLOW = 4429
CLOSE_UNREACHABLE = 4503


@dataclass(frozen=True, slots=True)
class RenderedEvent:
    """An event with the frames of all channels, rendered once for all connections."""

    event: Event
    frames: tuple[Frame, ...]

    def texts(self) -> list[str]:
        """Everything that is said of the event."""
        return [frame.text for frame in self.frames] or [sequence_text(self.event)]


@dataclass(frozen=True, slots=True)
class _Pushed:
    """How far one connection got; `gone` when it is closed for good, `failed` when its last message may be lost."""

    sent_sequence: int
    gone: bool = False
    failed: bool = False


@dataclass(slots=True, eq=False)
class Delivery:
    """A stream on its way: one future a connection. `told` is the cause of each event in it, by sequence."""

    stream: Stream
    told: dict[int, str | None] = field(default_factory=dict[int, str | None])
    pushed_sequence: int | None = None
    publish_failed: bool = False
    pushes: dict[Cursor, Future[_Pushed]] = field(default_factory=dict[Cursor, Future[_Pushed]])

    def done(self) -> bool:
        """True when every connection is served or given up."""
        return all(push.done() for push in self.pushes.values())

    def tell(self, due: Iterable[RenderedEvent]) -> None:
        """Note events that are on their way."""
        self.told |= {rendered.event.sequence: rendered.event.request_id for rendered in due}

    def log(self) -> None:
        """Write one line that is found by the request id of each event; none when nothing was due. After `done`."""
        if not self.told:
            return
        results = [push.result() for push in self.pushes.values()]
        causes = dict.fromkeys(cause for _, cause in sorted(self.told.items()) if cause is not None)
        facts: dict[str, object] = {
            "account_id": str(self.stream.account_id),
            "first_sequence": min(self.told),
            "last_sequence": max(self.told),
            "request_ids": list(causes)[-REQUEST_IDS_LOGGED_MAX:],
            "connections": len(results),
            "connections_gone": sum(pushed.gone for pushed in results),
            "connections_failed": sum(pushed.failed for pushed in results),
            "published": self.pushed_sequence is not None,
        }
        logger().info("delivery", extra=facts)

    def delivered(self) -> Delivered:
        """What is to be recorded; only after `done`."""
        results = [(cursor, push.result()) for cursor, push in self.pushes.items()]
        return Delivered(
            stream=self.stream,
            pushed_sequence=self.pushed_sequence,
            publish_failed=self.publish_failed,
            advances=tuple(
                Advance(cursor, pushed.sent_sequence, pushed.failed) for cursor, pushed in results if not pushed.gone
            ),
            gone=tuple(cursor.connection_id for cursor, pushed in results if pushed.gone),
        )


class Courier:
    """Delivers leased streams. Connections are served side by side, each in order by one thread at a time."""

    def __init__(
        self,
        sockets: Sockets,
        cache: Cache,
        executor: Executor,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sockets = sockets
        self._cache = cache
        self._executor = executor
        self._clock = clock
        self._sleep = sleep

    def start(
        self, streams: Sequence[Stream], events: Mapping[UUID, Sequence[Event]], *, deadline: float
    ) -> list[Delivery]:
        """Begin to deliver; nothing is sent after `deadline`, because another relay may hold the lease by then."""
        deliveries: list[Delivery] = []
        channels: list[tuple[Delivery, list[RenderedEvent]]] = []
        if any(stream.cursors for stream in streams):
            self._sockets.prepare()
        for stream in streams:
            rendered = [_render(event) for event in events.get(stream.account_id, ())]
            delivery = Delivery(stream)
            for cursor in stream.cursors:
                due = list(_in_order(rendered, cursor.sent_sequence))
                delivery.tell(due)
                # Nothing due although the account's last sequence is ahead: those events were removed.
                end = due[-1].event.sequence if due else stream.last_sequence
                delivery.pushes[cursor] = self._executor.submit(self._push, cursor, due, end, deadline)
            if stream.publish:
                due = list(_in_order(rendered, stream.pushed_sequence))
                delivery.tell(due)
                channels.append((delivery, due))
            deliveries.append(delivery)
        if self._clock() < deadline:
            self._publish(channels)
        return deliveries

    def _publish(self, channels: Sequence[tuple[Delivery, Sequence[RenderedEvent]]]) -> None:
        """Publish all streams in one round trip. What fails here is due again later, and holds up no connection."""
        if not channels:
            return

        def send(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            for delivery, due in channels:
                for rendered in due:
                    for text in rendered.texts():
                        pipeline.publish(f"orders:{delivery.stream.user_id}", text)
            pipeline.execute()

        try:
            self._cache.run(send)
        except CacheUnavailableError as error:
            logger().warning("events are not published", extra={"cause": str(error), "streams": len(channels)})
            metrics().add_metric(name="PublishFailed", unit=MetricUnit.Count, value=len(channels))
            for delivery, _ in channels:
                delivery.publish_failed = True
            return
        for delivery, due in channels:
            delivery.pushed_sequence = due[-1].event.sequence if due else delivery.stream.last_sequence

    def _push(self, cursor: Cursor, due: Sequence[RenderedEvent], end: int, deadline: float) -> _Pushed:
        """Send a connection what it is due, so that it has everything up to `end`. Runs in a thread of its own."""
        sent = cursor.sent_sequence
        for rendered in due:
            for text in texts_for(rendered.event, rendered.frames, cursor.channels):
                outcome = self._post(cursor.connection_id, text, deadline)
                if outcome is None:
                    return _Pushed(sent)
                if outcome is not Outcome.DELIVERED:
                    return self._stopped(cursor, sent, outcome)
            sent = rendered.event.sequence
        return _Pushed(end)

    def _post(self, connection_id: str, text: str, deadline: float) -> Outcome | None:
        """One message, patiently; None when the time is up before it could be sent."""
        for wait_seconds in (*SLOW_WAITS_SECONDS, None):
            if self._clock() >= deadline:
                return None
            outcome = self._sockets.post(connection_id, text)
            if outcome is not Outcome.SLOW or wait_seconds is None:
                return outcome
            self._sleep(wait_seconds)
        raise AssertionError("the last wait is None")

    def _stopped(self, cursor: Cursor, sent: int, outcome: Outcome) -> _Pushed:
        if outcome is Outcome.GONE:
            return _Pushed(sent, gone=True)
        if outcome is Outcome.SLOW:
            return self._cut(cursor, sent, CLOSE_TOO_SLOW, "You read too slowly. Connect again and subscribe since=N.")
        if cursor.failed_attempts + 1 >= FAILED_ATTEMPTS_MAX:
            return self._cut(cursor, sent, CLOSE_UNREACHABLE, "Messages do not arrive. Connect again.")
        return _Pushed(sent, failed=True)

    def _cut(self, cursor: Cursor, sent: int, code: int, reason: str) -> _Pushed:
        self._sockets.close(cursor.connection_id, code, reason)
        logger().warning("a connection was cut", extra={"connection_id": cursor.connection_id, "code": code})
        metrics().add_metric(name="ConnectionCut", unit=MetricUnit.Count, value=1)
        return _Pushed(sent, gone=True)


def _render(event: Event) -> RenderedEvent:
    """An event that cannot be told goes out as its bare sequence: what follows it must not wait for a repair."""
    try:
        return RenderedEvent(event, tuple(frames_of(event)))
    except UnrenderableError as error:
        logger().error(
            "an event cannot be rendered",
            extra={
                "account_id": str(event.account_id),
                "sequence": event.sequence,
                "request_id": event.request_id,
                "cause": str(error),
            },
        )
        metrics().add_metric(name="EventUnrenderable", unit=MetricUnit.Count, value=1)
        return RenderedEvent(event, ())


def _in_order(rendered: Iterable[RenderedEvent], after: int) -> Iterator[RenderedEvent]:
    """Those after sequence `after` without a gap between them: beyond a gap is what another cursor was read for.

    A gap right at the start is history that was removed: the events of an account are numbered without one.
    """
    previous: int | None = None
    for one in rendered:
        sequence = one.event.sequence
        if sequence <= after:
            continue
        if previous is not None and sequence != previous + 1:
            return
        previous = sequence
        yield one
