"""A queue's rules of time, on a clock that the test turns."""

import asyncio

import pytest

from local.gateway.event_sources import failed_ids
from local.gateway.invocations import Kind, Outcome
from local.gateway.queues import Queue, ReceiptError
from local.gateway.stack import QueueSpec


class Clock:
    """Seconds, turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock, *, receives_max: int = 0, dead: Queue | None = None, delay: int = 0) -> Queue:
    arn = "arn:aws:sqs:us-east-1:000000000000:q"
    queue = Queue(QueueSpec("q", arn, "u", 30, delay, 3600, 0, 1024, None, receives_max), clock)
    queue.dead_letters = dead
    return queue


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_received_message_is_hidden_for_its_time(clock: Clock) -> None:
    queue = make(clock)
    queue.send("a", {})

    first = queue.receive(10)
    clock.now = 29.9
    hidden = queue.receive(10)
    clock.now = 30.0
    again = queue.receive(10)

    assert [message.body for message in first] == ["a"]
    assert hidden == []
    assert again == first
    assert again[0].receives == 2


def test_messages_come_in_the_order_of_sending_and_no_more_than_asked(clock: Clock) -> None:
    queue = make(clock)
    for body in "abc":
        queue.send(body, {})

    assert [message.body for message in queue.receive(2)] == ["a", "b"]
    assert queue.counts() == (1, 2, 0)


@pytest.mark.parametrize(("own", "given", "due"), [(0, 10, 10), (10, None, 10), (10, 3, 3)])
def test_a_delay_is_the_messages_or_the_queues(clock: Clock, own: int, given: int | None, due: int) -> None:
    queue = make(clock, delay=own)
    queue.send("a", {}, given)

    clock.now = due - 0.1
    early = queue.receive(1)
    clock.now = due
    late = queue.receive(1)

    assert (len(early), len(late)) == (0, 1)


def test_a_message_received_too_often_is_a_dead_letter(clock: Clock) -> None:
    dead = make(clock)
    queue = make(clock, receives_max=2, dead=dead)
    sent = queue.send("a", {})

    for clock.now in (0.0, 30.0):
        assert len(queue.receive(1)) == 1
    clock.now = 60.0

    assert queue.receive(1) == []
    assert queue.counts() == (0, 0, 0)
    (letter,) = dead.receive(1)
    assert (letter.id, letter.receives) == (sent.id, 1)


def test_a_message_is_deleted_by_its_newest_receipt(clock: Clock) -> None:
    # given a message received twice
    queue = make(clock)
    queue.send("a", {})
    old = queue.receive(1)[0].receipt
    clock.now = 30.0
    new = queue.receive(1)[0].receipt

    # when the first receipt is used, nothing happens; when the second is, it is gone
    queue.delete(old)
    assert queue.counts() == (0, 1, 0)
    queue.delete(new)
    clock.now = 60.0
    assert queue.counts() == (0, 0, 0)


def test_a_late_delete_still_counts_while_nobody_else_has_the_message(clock: Clock) -> None:
    queue = make(clock)
    queue.send("a", {})
    receipt = queue.receive(1)[0].receipt
    clock.now = 31.0
    assert queue.counts() == (1, 0, 0)

    queue.delete(receipt)

    assert queue.counts() == (0, 0, 0)
    assert queue.receive(1) == []


def test_a_strange_receipt_is_refused(clock: Clock) -> None:
    with pytest.raises(ReceiptError):
        make(clock).delete("other/1")


def test_a_waiting_receiver_is_woken_by_a_message() -> None:
    async def story() -> list[str]:
        queue = Queue(QueueSpec("q", "a", "u", 30, 0, 3600, 0, 1024, None, 0))
        waiting = asyncio.create_task(queue.receive_waiting(1, 20))
        await asyncio.sleep(0)
        queue.send("a", {})
        return [message.body for message in await asyncio.wait_for(waiting, 5)]

    assert asyncio.run(story()) == ["a"]


@pytest.mark.parametrize(
    ("kind", "body", "failed"),
    [
        (Kind.ANSWERED, b"null", set()),
        (Kind.ANSWERED, b"{}", set()),
        (Kind.ANSWERED, b'{"batchItemFailures": []}', set()),
        (Kind.ANSWERED, b'{"batchItemFailures": null}', set()),
        (Kind.ANSWERED, b'{"batchItemFailures": [{"itemIdentifier": "a"}]}', {"a"}),
        (Kind.ANSWERED, b'{"batchItemFailures": [{"itemIdentifier": "x"}]}', {"a", "b"}),
        (Kind.ANSWERED, b'{"batchItemFailures": [{"itemIdentifier": ""}]}', {"a", "b"}),
        (Kind.ANSWERED, b'{"batchItemFailures": [{"id": "a"}]}', {"a", "b"}),
        (Kind.ANSWERED, b'{"batchItemFailures": "a"}', {"a", "b"}),
        (Kind.ANSWERED, b"nonsense", {"a", "b"}),
        (Kind.FAILED, b"{}", {"a", "b"}),
        (Kind.TIMED_OUT, b"{}", {"a", "b"}),
        (Kind.DIED, b"{}", {"a", "b"}),
        (Kind.NO_ROOM, b"{}", {"a", "b"}),
    ],
)
def test_a_report_is_believed_only_when_it_makes_sense(kind: Kind, body: bytes, failed: set[str]) -> None:
    assert failed_ids(Outcome(kind, body), {"a", "b"}, partial=True) == failed


def test_without_reports_a_batch_that_ran_is_done() -> None:
    report = b'{"batchItemFailures": [{"itemIdentifier": "a"}]}'

    assert failed_ids(Outcome(Kind.ANSWERED, report), {"a"}, partial=False) == set()
