"""Workers killed, frozen and invoked twice: the caller who repeats a request finds one order, whatever had happened."""

import json
from collections.abc import Callable
from typing import Any

import redis

from tests.kit.fault_runs import FaultRun
from tests.kit.functions import Answer, order_event
from tests.kit.gateway import eventually
from tests.kit.workers import Worker

type StartWorker = Callable[..., Worker]


def only_order(run: FaultRun, answer: Answer) -> None:
    """The one order that there is, is the one that the answer names."""
    assert answer.status == 200, answer.text
    assert run.value("SELECT array_agg(id::text) FROM orders") == [answer.body["data"]["order_id"]]


def is_replay(answer: Answer) -> bool:
    return answer.headers.get("Idempotency-Replayed") == "true"


def key_of(event: dict[str, Any]) -> str:
    return json.loads(event["body"])["idempotency_key"]


def stored_part(answer: Answer) -> str:
    """What is kept under the key, as it was sent: all but the request's own context."""
    return answer.text.partition(',"context":')[0]


def test_killed_before_the_call_nothing_has_happened(run: FaultRun, start_worker: StartWorker) -> None:
    """F1."""
    # given a worker on its way to the procedure
    event = order_event(run.user())
    first, second = start_worker(), start_worker()
    first.send(event, pause="before")
    assert first.wait_until_paused() == "before"

    # when it is killed there, and the caller repeats the request
    first.kill()
    nothing = run.value("SELECT count(*) FROM orders")
    answer = second.call(event)

    # then
    assert nothing == 0
    assert not is_replay(answer)
    only_order(run, answer)
    run.settle()


def test_killed_in_the_procedure_it_is_one_order_whether_or_not_that_went_on(
    run: FaultRun, start_worker: StartWorker
) -> None:
    """F1."""
    # given a worker whose order waits inside the procedure
    user = run.user()
    event = order_event(user)
    first, second = start_worker(), start_worker()
    with run.database.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (user.user_id,))
        first.send(event)
        eventually(lambda: run.waiting() == 1, what="an order that waits")

        # when it is killed there, and the account is free again at once
        first.kill()
        holder.rollback()

    # then the caller who repeats the request finds one order
    only_order(run, second.call(event))
    run.settle()


def test_killed_after_the_commit_the_answer_is_told_again(run: FaultRun, start_worker: StartWorker) -> None:
    """F1."""
    # given a worker that has committed and not answered
    event = order_event(run.user())
    first, second = start_worker(), start_worker()
    first.send(event, pause="after")
    assert first.wait_until_paused() == "after"

    # when it is killed there, and the caller repeats the request
    first.kill()
    answer = second.call(event)

    # then
    assert is_replay(answer)
    only_order(run, answer)
    run.settle()


def test_an_event_that_is_invoked_again_has_its_effect_once(run: FaultRun, start_worker: StartWorker) -> None:
    """F16: as asynchronous invocations are repeated, by the same environment and by another one."""
    # given
    event = order_event(run.user())
    first, second = start_worker(), start_worker()

    # when
    answers = [first.call(event), first.call(event), second.call(event)]

    # then
    assert [is_replay(answer) for answer in answers] == [False, True, True]
    assert len({stored_part(answer) for answer in answers}) == 1
    only_order(run, answers[0])
    run.settle()


def end_connections(run: FaultRun, redis_url: str) -> None:
    """Cut the worker's connections at the servers' side."""
    run.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND usename = 'function_trader'"
    )
    eventually(lambda: run.sessions() == 0, what="the end of the sessions")
    with redis.Redis.from_url(redis_url) as server:
        server.client_kill_filter(_type="normal", skipme=True)


def test_thawed_with_dead_sockets_a_worker_goes_on_as_if_nothing_had_been(
    run: FaultRun, start_worker: StartWorker, redis_url: str
) -> None:
    """F16."""
    # given a worker that has both connections, and is frozen between two orders
    user = run.user()
    frozen = start_worker()
    assert frozen.call(order_event(user)).status == 200
    with frozen.frozen():
        # when both servers drop their sides
        end_connections(run, redis_url)

    # then the next order is executed, by one more session
    event = order_event(user)
    answer = frozen.call(event)
    assert answer.status == 200, answer.text
    assert not is_replay(answer)
    assert run.value("SELECT count(*) FROM orders WHERE idempotency_key = %s", key_of(event)) == 1
    run.settle()


def test_thawed_in_mid_call_a_worker_finds_its_own_order(
    run: FaultRun, start_worker: StartWorker, redis_url: str
) -> None:
    """F16: the answer was lost in the freeze, and the worker itself repeats the call under the same key."""
    # given a worker that is frozen while its order waits, and whose connection is cut
    user = run.user()
    event = order_event(user)
    frozen = start_worker()
    with run.database.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (user.user_id,))
        frozen.send(event)
        eventually(lambda: run.waiting() == 1, what="an order that waits")
        with frozen.frozen():
            end_connections(run, redis_url)
            holder.rollback()

    # when it goes on, then the first attempt died with its session, and the caller never hears of it
    answer = frozen.answer()
    assert not is_replay(answer)
    only_order(run, answer)
    run.settle()
