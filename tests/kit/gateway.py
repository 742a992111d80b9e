"""A gateway process on the small deployment of tests/integration/gateway_stack."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
STACK = ROOT / "tests" / "integration" / "gateway_stack" / "template.yaml"


def eventually[T](condition: Callable[[], T | None], *, seconds: float = 20.0, what: str = "it") -> T:
    """The first true value of `condition`, asked again and again; AssertionError when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def start_gateway(
    state: Path,
    *,
    template: Path = STACK,
    parameters: Mapping[str, Any] | None = None,
    workers_max: int = 2,
    port: int = 0,
) -> subprocess.Popen[str]:
    """Start the process, on a free port by default; its first line says where it serves, or why it does not."""
    state.mkdir(exist_ok=True)
    content = {"port": port, "parameters": {"Token": "the-token"} | dict(parameters or {}), "workers_max": workers_max}
    (state / "gateway.json").write_text(json.dumps(content))
    return subprocess.Popen(
        [sys.executable, "-m", "local.gateway", "--state", str(state), "--template", str(template)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class RunningGateway:
    """Where a started gateway serves, and what runs below it."""

    def __init__(self, process: subprocess.Popen[str], state: Path) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("The gateway serves http://"), line + process.stdout.read()
        self.process = process
        self.state = state
        self.url = line.split()[-1]
        self.websocket_url = self.url.replace("http://", "ws://") + "/realtime"
        self.aws = dict(text.split("=", 1) for text in (state / "aws").read_text().splitlines())

    def client(self, service: str, endpoint: str | None = None) -> Any:
        """A boto3 client that the gateway trusts."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=endpoint or self.aws["AWS_ENDPOINT_URL"],
            region_name=self.aws["AWS_REGION"],
            aws_access_key_id=self.aws["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.aws["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"max_attempts": 0}),
        )

    def queue_url(self, logical_id: str) -> str:
        """The URL of a queue of the template."""
        return f"{self.aws['AWS_ENDPOINT_URL']}/000000000000/trading-local-{logical_id}"

    def workers(self, function: str) -> list[psutil.Process]:
        """The worker processes of the function in the folder `function`."""
        found: list[psutil.Process] = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if child.status() != psutil.STATUS_ZOMBIE and child.cwd().endswith(f"/functions/{function}"):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.terminate()
        self.process.communicate(timeout=15)


@contextmanager
def running_gateway(state: Path, **options: Any) -> Generator[RunningGateway]:
    """A gateway for the time of a block."""
    process = start_gateway(state, **options)
    try:
        gateway = RunningGateway(process, state)
        yield gateway
        if process.poll() is None:
            gateway.stop()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Reports:
    """What functions put into the report queue, or another one, kept until a test has looked for it."""

    def __init__(self, gateway: RunningGateway, queue: str = "ReportQueue") -> None:
        self._sqs = gateway.client("sqs")
        self._url = gateway.queue_url(queue)
        self.seen: list[dict[str, Any]] = []

    def until(self, condition: Callable[[list[dict[str, Any]]], Any], seconds: float = 20.0) -> list[dict[str, Any]]:
        """All reports so far, once `condition` holds for them."""
        end = time.monotonic() + seconds
        while not condition(self.seen):
            assert time.monotonic() < end, f"not within {seconds} s: {self.seen}"
            answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                self.seen.append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return self.seen

    def close(self) -> None:
        """Close the client's connections."""
        self._sqs.close()
