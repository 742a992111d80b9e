"""Mail by Amazon SES."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from trading.alerts import Notice
from trading.channels.protocol import ChannelError
from trading.settings import AWS_USER_AGENT

TIMEOUT_SECONDS = 3


class MailChannel:
    """Sends mail from one address to some."""

    def __init__(self, sender: str, recipients: Sequence[str]) -> None:
        self._sender = sender
        self._recipients = list(recipients)

    def send(self, notice: Notice) -> None:
        """Mail `notice` as plain text."""
        from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]

        try:
            _client().send_email(
                FromEmailAddress=self._sender,
                Destination={"ToAddresses": self._recipients},
                Content={
                    "Simple": {
                        "Subject": {"Data": notice.headline, "Charset": "UTF-8"},
                        "Body": {"Text": {"Data": notice.text, "Charset": "UTF-8"}},
                    }
                },
            )
        except (BotoCoreError, ClientError) as error:
            raise ChannelError(f"SES: {type(error).__name__}") from error


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
    return cast("Any", boto3).client("sesv2", config=limits)
