"""Which channel is reached how, by configuration."""

from collections.abc import Callable
from functools import partial

from trading.channels.log import LogChannel
from trading.channels.protocol import Channel
from trading.secrets import read_secret
from trading.settings import Settings

type FindChannel = Callable[[str], Channel | None]


def channel(given: Settings, name: str) -> Channel | None:
    """The channel called `name`; None when nothing is configured for it.

    ALERT_SINK takes the place of all of them: "log", or the address of a webhook on this machine.
    """
    if name == "log" or given.alert_sink == "log":
        return LogChannel()
    if given.alert_sink:
        return _webhook(lambda: given.alert_sink or "", given)
    if secret := {"slack": given.alert_slack_webhook_secret, "phone": given.alert_pager_webhook_secret}.get(name):
        return _webhook(partial(read_secret, secret), given)
    if name == "email" and given.alert_email_from and given.alert_email_to:
        from trading.channels.ses import MailChannel

        return MailChannel(given.alert_email_from, given.alert_email_to)
    if topic := given.alert_topics.get(name):
        from trading.channels.sns import TopicChannel

        return TopicChannel(topic)
    return None


def _webhook(url: Callable[[], str], given: Settings) -> Channel:
    from trading.channels.webhook import WebhookChannel

    return WebhookChannel(url, loopback=given.stage == "local")
