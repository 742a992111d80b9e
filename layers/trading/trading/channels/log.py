"""The function's own log: where everything ends that reaches nobody else, and the whole of it on one machine."""

from trading.alerts import Notice
from trading.observability import logger


class LogChannel:
    """Writes messages as log lines, which cannot fail."""

    def send(self, notice: Notice) -> None:
        """One line a message."""
        logger().warning(
            notice.headline,
            extra={
                "alert_id": str(notice.alert_id),
                "rule": notice.rule,
                "channel": notice.channel,
                "addressee": notice.addressee,
                "text": notice.text,
            },
        )
