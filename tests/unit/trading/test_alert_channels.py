"""Channels of alerts: what each sends, and that each says when it failed."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from trading.alerts import Notice
from trading.channels import ses, sns, webhook
from trading.channels.log import LogChannel
from trading.channels.protocol import ChannelError
from trading.channels.registry import channel
from trading.channels.ses import MailChannel
from trading.channels.sns import TopicChannel
from trading.channels.webhook import WebhookChannel
from trading.settings import ConfigurationError, Settings

NOTICE = Notice(
    id="n-1",
    kind="opened",
    level=1,
    addressee="team",
    channel="slack",
    alert_id="a-1",
    rule="ORDER_EXECUTION_FAILURE",
    title="Orders fail",
    subject="",
    severity="critical",
    figure="order_failure_percent",
    value=Decimal("7.500"),
    threshold=Decimal(5),
    samples=42,
    opened_at=datetime(2026, 11, 26, 10, 0, tzinfo=UTC),
    runbook="order-execution-failure",
)


@contextmanager
def receiver(status: int = 200, headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A server on this machine that takes posts: its URL, and what came."""
    taken: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((self.path, self.headers["Idempotency-Key"], json.loads(body)))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            taken.append((self.path, None, None))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_words_say_what_where_since_when_and_what_to_do() -> None:
    assert NOTICE.text == (
        "[CRITICAL] Orders fail\n"
        "ORDER_EXECUTION_FAILURE: order_failure_percent is 7.5, the threshold 5 (42 observed).\n"
        "Open since 2026-11-26 10:00:00 UTC. For team.\n"
        "Alert a-1.\n"
        "Runbook: docs/runbooks/order-execution-failure.md"
    )


class TestWebhook:
    def test_it_posts_what_a_chat_shows_and_a_pager_reads(self) -> None:
        with receiver() as (url, taken):
            WebhookChannel(lambda: f"{url}/hook", loopback=True).send(NOTICE)

        ((path, key, body),) = taken
        assert (path, key) == ("/hook", "n-1")
        assert body["text"] == NOTICE.text
        assert (body["dedup_key"], body["event_action"]) == ("a-1", "trigger")
        assert body["payload"]["summary"] == "[CRITICAL] Orders fail"

    def test_a_redirect_is_not_followed(self) -> None:
        with (
            receiver() as (elsewhere, followed),
            receiver(302, {"Location": elsewhere}) as (url, _),
            pytest.raises(ChannelError, match="302"),
        ):
            WebhookChannel(lambda: url, loopback=True).send(NOTICE)
        assert followed == []

    @pytest.mark.parametrize(
        ("url", "loopback"),
        [
            ("http://127.0.0.1:1/", False),
            ("http://example.com/", True),
            ("file:///etc/passwd", True),
            ("ftp://127.0.0.1/", True),
            ("not an address", True),
        ],
    )
    def test_only_https_is_spoken_but_to_this_machine(self, url: str, loopback: bool) -> None:
        with pytest.raises(ChannelError, match="ValueError"):
            WebhookChannel(lambda: url, loopback=loopback).send(NOTICE)

    def test_a_failure_names_no_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.2)
        with receiver(500) as (url, _), pytest.raises(ChannelError) as refused:
            WebhookChannel(lambda: f"{url}/secret", loopback=True).send(NOTICE)
        with pytest.raises(ChannelError) as gone:
            WebhookChannel(lambda: f"{url}/secret", loopback=True).send(NOTICE)

        assert str(refused.value) == "the webhook answered 500"
        assert str(gone.value) == "the webhook failed: URLError"


@mock_aws
class TestAws:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        sns._client.cache_clear()
        ses._client.cache_clear()
        yield
        sns._client.cache_clear()
        ses._client.cache_clear()

    def test_a_topic_gets_the_message_and_what_subscribers_choose_by(self) -> None:
        client: Any = boto3.client("sns")
        queues: Any = boto3.client("sqs")
        topic = client.create_topic(Name="alerts")["TopicArn"]
        url = queues.create_queue(QueueName="alerts")["QueueUrl"]
        arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        client.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"FilterPolicy": '{"addressee": ["team"]}'}
        )

        TopicChannel(topic).send(NOTICE)

        (message,) = queues.receive_message(QueueUrl=url)["Messages"]
        told = json.loads(message["Body"])
        assert (told["Subject"], told["Message"]) == ("[CRITICAL] Orders fail", NOTICE.text)
        assert told["MessageAttributes"]["notice_id"]["Value"] == "n-1"

    def test_a_topic_that_is_not_there_is_a_failure(self) -> None:
        with pytest.raises(ChannelError, match="SNS"):
            TopicChannel("arn:aws:sns:eu-west-1:123456789012:gone").send(NOTICE)

    def test_mail_goes_from_a_verified_sender_and_from_no_other(self) -> None:
        client: Any = boto3.client("sesv2")
        with pytest.raises(ChannelError, match="SES"):
            MailChannel("alerts@example.com", ["team@example.com"]).send(NOTICE)

        client.create_email_identity(EmailIdentity="alerts@example.com")
        MailChannel("alerts@example.com", ["team@example.com"]).send(NOTICE)

        assert boto3.client("ses").get_send_quota()["SentLast24Hours"] == 1  # pyright: ignore[reportAttributeAccessIssue]


class TestRegistry:
    def test_each_is_found_by_what_is_configured_for_it(self, tmp_path: Path) -> None:
        secret = tmp_path / "hook"
        secret.write_text("https://chat.example.com/hook")
        given = Settings.from_environment(
            {
                "ALERT_SLACK_WEBHOOK_SECRET": f"file:{secret}",
                "ALERT_EMAIL_FROM": "alerts@example.com",
                "ALERT_EMAIL_TO": "a@example.com, b@example.com",
                "ALERT_TOPICS": "email=arn:aws:sns:x:1:email, sms=arn:aws:sns:x:1:sms",
            }
        )

        kinds = {name: type(channel(given, name)) for name in ("slack", "email", "sms", "log", "phone", "management")}

        assert kinds == {
            "slack": WebhookChannel,
            "email": MailChannel,
            "sms": TopicChannel,
            "log": LogChannel,
            "phone": type(None),
            "management": type(None),
        }

    def test_without_a_sender_mail_goes_by_its_topic(self) -> None:
        given = Settings.from_environment({"ALERT_TOPICS": "email=arn:aws:sns:x:1:email"})

        assert isinstance(channel(given, "email"), TopicChannel)

    def test_a_sink_takes_the_place_of_all(self) -> None:
        log = Settings.from_environment({"ALERT_SINK": "log", "ALERT_TOPICS": "sms=arn:aws:sns:x:1:sms"})
        with receiver() as (url, taken):
            hook = Settings.from_environment({"ALERT_SINK": f"{url}/all"})
            found = channel(hook, "sms")
            assert found is not None
            found.send(NOTICE)

        assert isinstance(channel(log, "sms"), LogChannel)
        assert [path for path, _, _ in taken] == ["/all"]

    @pytest.mark.parametrize(
        "variables",
        [{"ALERT_SINK": "http://example.com/"}, {"ALERT_SINK": "elsewhere"}, {"ALERT_TOPICS": "sms"}],
    )
    def test_what_leads_elsewhere_is_refused(self, variables: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError):
            Settings.from_environment(variables)
