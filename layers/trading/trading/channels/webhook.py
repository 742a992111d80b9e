"""Webhooks over HTTPS: a chat's, a pager's."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from trading.alerts import Notice
from trading.channels.protocol import ChannelError
from trading.json_text import json_text

TIMEOUT_SECONDS = 3.0
LOOPBACK = frozenset({"127.0.0.1", "::1"})


class WebhookChannel:
    """Posts messages to one address, which comes from the configuration and from nowhere else.

    `url` is asked for at each message, so that a rotated one is picked up. Redirects are not followed: they would lead
    where nobody has configured anything. With `loopback` plain HTTP to this machine is taken too.
    """

    def __init__(self, url: Callable[[], str], *, loopback: bool = False) -> None:
        self._url = url
        self._loopback = loopback

    def send(self, notice: Notice) -> None:
        """Post `notice`; any answer but a 2xx is a failure. A chat shows `text`, a pager reads the rest."""
        import http.client
        import urllib.error
        import urllib.request

        body = {
            "text": notice.text,
            "dedup_key": str(notice.alert_id),
            "event_action": "resolve" if notice.kind in {"cleared", "resolved"} else "trigger",
            "payload": {
                "summary": notice.headline,
                "source": notice.subject or "trading",
                "severity": notice.severity,
                "custom_details": {
                    "rule": notice.rule,
                    "kind": notice.kind,
                    "addressee": notice.addressee,
                    "level": notice.level,
                },
            },
        }
        try:
            request = urllib.request.Request(  # noqa: S310 - the scheme is checked
                self._checked_url(),
                data=json_text(body).encode(),
                headers={"Content-Type": "application/json", "Idempotency-Key": str(notice.id)},
                method="POST",
            )
            with _opener().open(request, timeout=TIMEOUT_SECONDS):
                return
        except urllib.error.HTTPError as error:
            error.close()
            raise ChannelError(f"the webhook answered {error.code}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ChannelError(f"the webhook failed: {type(error).__name__}") from error

    def _checked_url(self) -> str:
        url = self._url()
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname:
            return url
        if self._loopback and parts.scheme == "http" and parts.hostname in LOOPBACK:
            return url
        raise ValueError("a webhook is an https address")


def _opener() -> Any:
    import urllib.request

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
            return None

    # No proxy from the environment either.
    return urllib.request.build_opener(NoRedirects(), urllib.request.ProxyHandler({}))
