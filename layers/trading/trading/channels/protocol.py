"""What a channel is."""

from typing import Protocol

from trading.alerts import Notice


class ChannelError(Exception):
    """The message may not have arrived. The text names no secret: it is kept beside the message."""


class Channel(Protocol):
    """A way to people."""

    def send(self, notice: Notice) -> None:
        """Hand `notice` over, within seconds; ChannelError when that failed or is not known to have worked."""
        ...
