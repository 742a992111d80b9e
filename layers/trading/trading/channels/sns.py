"""Topics of Amazon SNS: short messages and whoever else subscribes."""

from functools import lru_cache
from typing import Any, cast

from trading.alerts import Notice
from trading.channels.protocol import ChannelError
from trading.settings import AWS_USER_AGENT

TIMEOUT_SECONDS = 3
# Of a subject, which only mail shows; SNS refuses one of 100.
SUBJECT_CHARACTERS_MAX = 99


class TopicChannel:
    """Publishes to one topic. Subscribers can choose by the attributes addressee and severity."""

    def __init__(self, topic_arn: str) -> None:
        self._topic_arn = topic_arn

    def send(self, notice: Notice) -> None:
        """Publish `notice`."""
        from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]

        told = {"notice_id": str(notice.id), "addressee": notice.addressee, "severity": notice.severity}
        try:
            _client().publish(
                TopicArn=self._topic_arn,
                Subject=notice.headline[:SUBJECT_CHARACTERS_MAX],
                Message=notice.text,
                MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in told.items()},
            )
        except (BotoCoreError, ClientError) as error:
            raise ChannelError(f"SNS: {type(error).__name__}") from error


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3  # pyright: ignore[reportMissingTypeStubs]
    from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

    limits = Config(
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent=AWS_USER_AGENT,
    )
    return cast("Any", boto3).client("sns", config=limits)
