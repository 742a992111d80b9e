"""The local gateway's SQS API alone, in a process of its own, with nobody who receives."""

import asyncio
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvloop

from local.gateway.aws_api import AwsApi
from local.gateway.connections import Connections
from local.gateway.environments import Credentials
from local.gateway.lambda_api import LambdaApi
from local.gateway.queues import Queue
from local.gateway.server import Server, address, listen
from local.gateway.sqs_api import SqsApi
from local.gateway.stack import QueueSpec

CREDENTIALS = Credentials("LOCALBENCHMARK", "a secret of no account")
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class LocalQueue:
    """Where the queue is; it keeps what it is sent."""

    endpoint: str

    @property
    def url(self) -> str:
        """Its queue URL."""
        return f"{self.endpoint}/000000000000/relay"

    @property
    def variables(self) -> dict[str, str]:
        """What a function needs in its environment to send to it."""
        return {
            "RELAY_QUEUE_URL": self.url,
            "AWS_ENDPOINT_URL_SQS": self.endpoint,
            "AWS_ACCESS_KEY_ID": CREDENTIALS.key_id,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def length(self) -> int:
        """How many messages it was sent."""
        import boto3

        client: Any = boto3.client(
            "sqs",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS.key_id,
            aws_secret_access_key=CREDENTIALS.secret,
        )
        answer = client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages"])
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])


@contextmanager
def serving_queue() -> Iterator[LocalQueue]:
    """A queue for the time of a block."""
    listener = listen(0)
    queue = LocalQueue(f"http://{address(listener)}")
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener, queue.url), daemon=True)
    process.start()
    listener.close()
    try:
        yield queue
    finally:
        process.terminate()
        process.join()


def _serve(listener: socket.socket, url: str) -> None:
    async def serve() -> None:
        spec = QueueSpec("relay", "relay", url, 60, 0, 3600, 0, 256 * 1024, None, 0)
        queues = {"relay": Queue(spec)}
        api = AwsApi(CREDENTIALS, SqsApi(queues), LambdaApi((), queues), Connections())
        server = Server(api, listener, 1)
        server.start()
        await asyncio.Event().wait()

    uvloop.run(serve())
