"""process_updates as Lambda calls it: batches with poison and duplicates, lingering, the sweep."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kit.builders import User, make_user
from tests.kit.functions import Context, function_environment, load_function
from tests.kit.realtime import ConnectionsApi, RelayWorld, add_event, soon
from tests.kit.servers import ScratchDatabase
from trading import sockets
from trading.relay import AWAKE_KEY, AWAKE_MS, DRAIN_SECONDS

type Handler = Callable[[dict[str, Any], Any], Any]


@pytest.fixture
def world(database: ScratchDatabase, redis_url: str) -> Iterator[RelayWorld]:
    api = ConnectionsApi()
    api.start()
    world = RelayWorld(database, redis_url, api)
    yield world
    world.close()
    api.stop()


@pytest.fixture
def handler(world: RelayWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Handler]:
    with function_environment(
        monkeypatch,
        tmp_path,
        database=world.database,
        redis_url=world.redis_url,
        role="function_relay",
        CONNECTIONS_ENDPOINT=world.api.endpoint,
        RELAY_LINGER_SECONDS="0",
    ):
        sockets.sockets.cache_clear()
        yield load_function("process_updates")
        sockets.sockets.cache_clear()


class LongContext(Context):
    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def records(*bodies: str, request_ids: Sequence[str | None] = ()) -> dict[str, Any]:
    """An event of SQS; each message is named by its position, and has the request id at its position."""
    causes = [*request_ids, *[None] * (len(bodies) - len(request_ids))]
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "receiptHandle": f"r{number}",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1",
                    "SenderId": "s",
                    "ApproximateFirstReceiveTimestamp": "1",
                },
                "messageAttributes": _attributes(cause),
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:RelayQueue",
                "awsRegion": "eu-west-1",
            }
            for number, (body, cause) in enumerate(zip(bodies, causes, strict=True))
        ]
    }


def _attributes(request_id: str | None) -> dict[str, Any]:
    if request_id is None:
        return {}
    return {
        "request_id": {
            "stringValue": request_id,
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": "String",
        }
    }


def log_lines(capsys: pytest.CaptureFixture[str], message: str) -> list[dict[str, Any]]:
    """What was logged with `message` since the last look."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line.get("message") == message]


def message_of(user: User) -> str:
    return json.dumps({"account_id": str(user.account_id)})


def test_a_message_three_times_has_its_effect_once(world: RelayWorld, handler: Handler) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)

    # when it comes twice in a batch, and once more afterwards
    first = handler(records(message_of(trader), message_of(trader)), LongContext())
    again = handler(records(message_of(trader)), LongContext())

    # then
    assert first == again == {"batchItemFailures": []}
    assert world.api.sequences("c") == [1]
    assert len(world.api.posted["c"]) == 5


def test_a_delivery_is_found_in_the_log_by_the_request_that_caused_it(
    world: RelayWorld, handler: Handler, capsys: pytest.CaptureFixture[str]
) -> None:
    # given two events of two requests, one of a cause without a request, and a connection that is gone
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.connect("gone", trader)
    world.api.gone("gone")
    for request_id in ("request-1", "request-2", None):
        world.happen(trader, request_id=request_id)

    # when their messages come in one batch, one of them twice, and one without a request id
    body = message_of(trader)
    handler(records(*[body] * 4, request_ids=["request-1", "request-2", "request-1"]), LongContext())

    # then each frame names its request, and so does the line of the delivery
    assert [message.get("request_id") for message in world.api.posted["c"]] == [
        cause for cause in ("request-1", "request-2", None) for _ in range(5)
    ]
    (line,) = log_lines(capsys, "delivery")
    assert line["correlation_id"] == "request-1,request-2"
    assert line["request_ids"] == ["request-1", "request-2"]
    assert (line["account_id"], line["first_sequence"], line["last_sequence"]) == (str(trader.account_id), 1, 3)
    assert (line["connections"], line["connections_gone"], line["connections_failed"]) == (2, 1, 0)
    assert line["published"] is True


def test_runs_without_a_request_are_told_apart_too(
    world: RelayWorld, handler: Handler, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    trader = make_user(world.database, balance=0)
    woken, swept = LongContext(), LongContext()

    # when a message without a request id comes, and when the schedule does
    world.happen(trader)
    handler(records(message_of(trader)), woken)
    (by_message,) = log_lines(capsys, "delivery")
    handler({"source": "schedule"}, swept)
    (by_schedule,) = log_lines(capsys, "swept")

    # then
    assert by_message["correlation_id"] == f"relay-{woken.aws_request_id}"
    assert by_schedule["correlation_id"] == f"sweep-{swept.aws_request_id}"


def test_a_poison_message_fails_alone(world: RelayWorld, handler: Handler) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    of_another_release = json.dumps({"account_id": str(trader.account_id), "version": 2})
    poison = ["", "not json", "[]", "{}", '{"account_id": 7}', '{"account_id": "nobody"}', '{"account_id": null}']
    poison += ["[" * 100_000, "\ud800", of_another_release]

    # when
    answer = handler(records(*poison, message_of(trader)), LongContext())

    # then
    assert answer == {"batchItemFailures": [{"itemIdentifier": f"m{number}"} for number in range(len(poison))]}
    assert world.api.sequences("c") == [1]


def test_a_batch_of_poison_alone_fails_message_by_message(world: RelayWorld, handler: Handler) -> None:
    # when
    answer = handler(records("x", "y"), LongContext())

    # then
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m1"}]}


def test_events_that_come_while_it_lingers_need_no_message(
    world: RelayWorld, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a relay that lingers
    from trading.settings import settings

    monkeypatch.setenv("RELAY_LINGER_SECONDS", "2")
    settings.cache_clear()
    trader, other = make_user(world.database, balance=0), make_user(world.database, balance=0)
    world.connect("c", trader)
    world.connect("o", other)
    world.happen(trader)
    redis = world.cache()
    thread = threading.Thread(target=handler, args=(records(message_of(trader)), LongContext()))
    thread.start()
    soon(lambda: redis.run(lambda client: client.exists(AWAKE_KEY)) == 1)

    # when events of any account happen, and a client subscribes, all without a message
    world.happen(other)
    soon(lambda: world.api.sequences("o") == [1], seconds=1)
    world.age_events()
    world.connect("late", other, since=0)
    soon(lambda: world.api.sequences("late") == [1], seconds=1)

    # and one more after the sign was taken away
    soon(lambda: redis.run(lambda client: client.exists(AWAKE_KEY)) == 0)
    assert thread.is_alive()
    world.happen(trader)
    soon(lambda: world.api.sequences("c") == [1, 2], seconds=1)

    # then
    thread.join(DRAIN_SECONDS + 5)
    assert not thread.is_alive()
    assert redis.run(lambda client: client.exists(AWAKE_KEY)) == 0


def test_an_event_that_commits_long_after_its_time_is_found(
    world: RelayWorld, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a lingering relay, and a transaction that has stamped its event and does not commit
    from trading.settings import settings

    monkeypatch.setenv("RELAY_LINGER_SECONDS", "3")
    settings.cache_clear()
    trader, other = make_user(world.database, balance=0), make_user(world.database, balance=0)
    world.connect("c", trader)
    thread = threading.Thread(target=handler, args=(records(message_of(other)), LongContext()))
    with world.database.connect(autocommit=False) as late:
        add_event(late, trader)
        late.execute("UPDATE events SET created_at = created_at - interval '4 seconds'")
        thread.start()
        soon(lambda: world.cache().run(lambda client: client.exists(AWAKE_KEY)) == 1)

        # when
        late.commit()

    # then
    soon(lambda: world.api.sequences("c") == [1], seconds=2.5)
    thread.join(20)


def test_the_sign_falls_by_itself_when_its_relay_dies(world: RelayWorld) -> None:
    # given
    from trading.relay import AwakeSign

    redis = world.cache()

    # when
    AwakeSign(redis).show()

    # then
    assert 0 < redis.run(lambda client: client.pttl(AWAKE_KEY)) <= AWAKE_MS


def test_a_lost_database_fails_the_batch(world: RelayWorld, handler: Handler) -> None:
    from trading.errors import TradingError

    # given
    trader = make_user(world.database, balance=0)
    world.happen(trader)
    world.database.drop()

    # when / then
    with pytest.raises(TradingError, match="DATABASE_UNAVAILABLE"):
        handler(records(message_of(trader)), LongContext())


def test_the_schedule_sweeps_and_closes_what_may_not_stay(world: RelayWorld, handler: Handler) -> None:
    # given
    trader = make_user(world.database, balance=0)
    for name in ("c", "expired", "aged", "blocked"):
        world.connect(name, trader)
    for name in ("fresh", "silent"):
        world.connections.register(name, protocol=None, source_ip=None)
    with world.database.connect() as connection:
        for statement in (
            "UPDATE connections SET token_expires_at = clock_timestamp() WHERE connection_id = 'expired'",
            "UPDATE connections SET connected_at = connected_at - interval '3 hours' WHERE connection_id = 'aged'",
            "UPDATE connections SET connected_at = connected_at - interval '1 minute' WHERE connection_id = 'silent'",
            # It only listens, from the network of the address that is blocked.
            "UPDATE connections SET source_ip = '2001:db8:1:2::5' WHERE connection_id = 'blocked'",
            "UPDATE connections SET source_ip = '2001:db8:1:3::5' WHERE connection_id = 'c'",
            """SELECT start_intervention('{"version": 1, "kind": "ip_block", "target": "2001:db8:1:2::9", "seconds": 60,
                "reason": "a test", "actor": "a test"}')""",
            # Of an open market, and without a quote.
            "UPDATE instruments SET is_active = symbol = 'BTCUSD'",
        ):
            connection.execute(statement)
    world.happen(trader)

    # when
    answer = handler({"source": "schedule"}, LongContext())

    # then
    assert answer == {"prices_told": 3, "accounts": 1, "connections_closed": 4, "keys_purged": 0}
    assert world.api.posted["c"][0]["data"]["symbols"] == ["BTCUSD"]
    assert world.api.sequences("c") == [1]
    assert sorted(world.api.cut) == ["aged", "blocked", "expired", "silent"]
    assert world.api.posted["blocked"][-1]["code"] == 4423
    assert world.value("SELECT array_agg(connection_id ORDER BY connection_id) FROM connections") == ["c", "fresh"]
    assert [message["type"] for message in world.api.posted["silent"]] == ["closing"]
    assert world.api.posted["silent"][0]["code"] == 4401
    assert world.api.posted["expired"][-1]["code"] == 4403


def test_the_schedule_removes_keys_that_have_expired_and_no_others(world: RelayWorld, handler: Handler) -> None:
    # given
    trader = make_user(world.database, balance=100)
    with world.database.connect() as connection:
        connection.execute(
            "INSERT INTO idempotency_keys SELECT user_id, account_id, 'expired', request_hash, answer, created_at, "
            "clock_timestamp() FROM idempotency_keys WHERE user_id = %s",
            (trader.user_id,),
        )
        # and somebody else's of the same name that has not
        connection.execute(
            "INSERT INTO idempotency_keys SELECT user_id, account_id, 'expired', request_hash, answer, created_at, "
            "expires_at FROM idempotency_keys WHERE user_id = %s",
            (make_user(world.database, balance=100).user_id,),
        )

    # when
    answer = handler({"source": "schedule"}, LongContext())

    # then
    assert answer["keys_purged"] == 1
    assert world.value("SELECT count(*) FROM idempotency_keys WHERE expires_at > clock_timestamp()") == 3
    assert world.value("SELECT count(*) FROM idempotency_keys WHERE expires_at <= clock_timestamp()") == 0
