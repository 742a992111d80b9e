"""Messages that come twice, late, together with poison, or to a function that crashes; orders that Lambda ends."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.builders import User, order_body
from tests.kit.fault_runs import FaultRun
from tests.kit.functions import API_CLIENT, AUDIENCE, ISSUER, bearer, function_variables, make_token
from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.realtime import ConnectionsApi, RelayWorld

STACK = Path(__file__).parent / "stack" / "template.yaml"
POSTS_OF_AN_EVENT = 5

POISON = {
    "bad JSON": "{not json",
    "nested too deep": "[" * 100_000,
    "of another release": '{"version": 2, "account_id": "01a00000-0000-7000-8000-000000000000"}',
}


@dataclass
class Deployment:
    """A gateway that runs the stack on a run's database, and the connections that the relay pushes to."""

    run: FaultRun
    gateway: RunningGateway
    world: RelayWorld
    sqs: Any

    def send(self, *bodies: str) -> None:
        """Put messages into the relay's queue, as one batch."""
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        self.sqs.send_message_batch(QueueUrl=self.gateway.queue_url("RelayQueue"), Entries=entries)

    def left(self, queue: str = "RelayQueue") -> int:
        """How many messages a queue holds, seen or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.gateway.queue_url(queue), AttributeNames=names)
        return sum(int(count) for count in answer["Attributes"].values())

    def wait_until_empty(self) -> None:
        """Return when the relay's queue holds nothing any more."""
        eventually(lambda: self.left() == 0, what="an empty queue")

    def dead_letters(self) -> list[dict[str, Any]]:
        """The messages that were given up, taken out of their queue."""
        url = self.gateway.queue_url("RelayDeadLetterQueue")
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found += messages
        return found

    def order(self, user: User, key: str) -> httpx.Response:
        """A market order over HTTP."""
        return httpx.post(
            f"{self.gateway.url}/functions/v1/execute-order",
            json=order_body(idempotency_key=key),
            headers=bearer(make_token(user)),
            timeout=20,
            trust_env=False,
        )


@pytest.fixture
def deployment(
    run: FaultRun, redis_url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    api = ConnectionsApi()
    api.start()
    world = RelayWorld(run.database, redis_url, api)
    trader, relay = (
        function_variables(tmp_path_factory.mktemp(role), run.database.url_for(role), redis_url)
        for role in ("function_trader", "function_relay")
    )
    parameters = {
        "TraderDatabaseSecret": trader["DATABASE_SECRET"],
        "RelayDatabaseSecret": relay["DATABASE_SECRET"],
        "RedisSecret": trader["REDIS_SECRET"],
        "JwtSecret": trader["JWT_SECRET"],
        "CsrfSecret": trader["CSRF_SECRET"],
        "JwtIssuer": ISSUER,
        "JwtAudience": AUDIENCE,
        "ApiClientIds": API_CLIENT,
        "ConnectionsEndpoint": api.endpoint,
    }
    with running_gateway(tmp_path / "state", template=STACK, parameters=parameters) as gateway:
        sqs = gateway.client("sqs")
        yield Deployment(run, gateway, world, sqs)
        sqs.close()
    world.close()
    api.stop()


def message_of(user: User) -> str:
    return json.dumps({"account_id": str(user.account_id)})


def test_duplicates_and_disorder_change_nothing(deployment: Deployment) -> None:
    """F10: each message three times, in any order, the later ones first."""
    # given three accounts with three events each
    world, run = deployment.world, deployment.run
    users = [run.user() for _ in range(3)]
    for user in users:
        world.connect(str(user.user_id), user)
        world.happen(user)
        world.happen(user)
    messages = [message_of(user) for user in users] * 3
    run.dice.shuffle(messages)

    # when
    deployment.send(*messages)
    deployment.wait_until_empty()

    # then each connection has each event once, in order; the deposit is its first
    for user in users:
        assert world.api.sequences(str(user.user_id)) == [2, 3]
        assert len(world.api.posted[str(user.user_id)]) == 2 * POSTS_OF_AN_EVENT
    assert deployment.dead_letters() == []
    run.settle()


def test_a_message_that_comes_again_while_the_first_still_runs(deployment: Deployment) -> None:
    """F10: a queue may hand a message out twice at any time."""
    # given a connection that holds the first run up
    world, user = deployment.world, deployment.run.user()
    world.connect("c", user)
    world.happen(user)
    held, released = threading.Event(), threading.Event()

    def hold(_message: object) -> int:
        held.set()
        released.wait(10)
        return 200

    world.api.answers["c"] = hold
    deployment.send(message_of(user))
    assert held.wait(20)

    # when another worker has it too, and finds the account taken
    deployment.send(message_of(user))
    eventually(lambda: len(deployment.gateway.workers("process_updates")) == 2, what="a second worker")
    released.set()
    deployment.wait_until_empty()

    # then each frame is there; the one that was held may have been given up and sent again, as itself
    assert world.api.sequences("c") == [2]
    frames = [str(message) for message in world.api.posted["c"]]
    assert len(set(frames)) == POSTS_OF_AN_EVENT
    assert len(frames) <= POSTS_OF_AN_EVENT + 1
    deployment.run.settle()


def test_poison_is_given_up_alone(deployment: Deployment) -> None:
    """F10, F11: a batch of three kinds of poison and one good message."""
    # given
    world, user = deployment.world, deployment.run.user()
    world.connect("c", user)
    world.happen(user)

    # when
    deployment.send(*POISON.values(), message_of(user))

    # then the good one had its effect, once, and the others are kept for a person to look at
    eventually(lambda: deployment.left("RelayDeadLetterQueue") == len(POISON), what="the dead letters")
    letters = deployment.dead_letters()
    assert sorted(letter["Body"] for letter in letters) == sorted(POISON.values())
    assert deployment.left() == 0
    assert world.api.sequences("c") == [2]
    assert len(world.api.posted["c"]) == POSTS_OF_AN_EVENT
    deployment.run.settle()


def test_what_a_crashing_function_gave_up_has_its_effect_once_after_the_redrive(deployment: Deployment) -> None:
    """F11: the handler fails as a whole, until its messages are dead letters."""
    # given a relay whose database takes no connections
    world, run, user = deployment.world, deployment.run, deployment.run.user()
    world.connect("c", user)
    world.happen(user)
    run.elsewhere(f"ALTER DATABASE {run.database.name} ALLOW_CONNECTIONS false")
    deployment.send(message_of(user))
    eventually(lambda: deployment.left("RelayDeadLetterQueue") == 1, what="the dead letter")
    assert world.api.posted["c"] == []

    # when it is well again, and the dead letter is sent back, twice over
    run.elsewhere(f"ALTER DATABASE {run.database.name} ALLOW_CONNECTIONS true")
    (letter,) = deployment.dead_letters()
    deployment.send(letter["Body"], letter["Body"])
    deployment.wait_until_empty()

    # then
    assert world.api.sequences("c") == [2]
    assert len(world.api.posted["c"]) == POSTS_OF_AN_EVENT
    run.settle()


def test_an_order_that_lambda_ends_is_found_by_the_repeated_request(deployment: Deployment) -> None:
    """F16: the time-out kills the worker in mid-call; the caller knows nothing and sends the same key."""
    # given an account that stays locked for longer than the function may take
    run, user = deployment.run, deployment.run.user()
    with run.database.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (user.user_id,))
        # when
        ended = deployment.order(user, "ended")
        workers = [worker.pid for worker in deployment.gateway.workers("execute_order")]
        holder.rollback()
    again = deployment.order(user, "ended")

    # then there is one order, made by whichever attempt
    assert ended.status_code == 504
    assert again.status_code == 200, again.text
    assert run.value("SELECT array_agg(id::text) FROM orders") == [again.json()["data"]["order_id"]]
    assert not set(workers) & {worker.pid for worker in deployment.gateway.workers("execute_order")}
    run.settle()
