"""What WebSocket clients may say: their messages, parsed and checked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast
from uuid import UUID

from trading.errors import ErrorCode, TradingError, validation_failed
from trading.events import CHANNELS
from trading.json_body import JsonRefusedError, JsonTooLargeError, parse_json_object

MESSAGE_BYTES_MAX = 32 * 1024
TOKEN_CHARACTERS_MAX = 8 * 1024
SYMBOLS_MAX = 100
SEQUENCE_MAX = 2**63 - 1
HOW_TO = (
    'Send one JSON object with a "type": {"type":"auth","token":"..."}, '
    '{"type":"subscribe","channels":["orders","positions","account","risk","market_data"],"symbols":["EURUSD"]}, '
    '{"type":"unsubscribe"} or {"type":"ping"}.'
)

_SYMBOL = re.compile(r"[A-Z0-9_]{1,20}")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Channels and symbols to add; with `since`, events from the one after it on are sent again."""

    channels: tuple[str, ...]
    symbols: tuple[str, ...]
    since: int | None
    account_id: UUID | None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Channels and symbols to take away; both empty means all."""

    channels: tuple[str, ...]
    symbols: tuple[str, ...]


def parse_message(body: str | None) -> dict[str, Any]:
    """The JSON object in a message. Raises PAYLOAD_TOO_LARGE and VALIDATION_FAILED, which say what to send.

    The errors do not repeat the message: a broken one may hold a token.
    """
    try:
        # A lone surrogate is passed on as it is, for the parser to refuse.
        return parse_json_object((body or "").encode("utf-8", errors="surrogatepass"), MESSAGE_BYTES_MAX)
    except JsonTooLargeError as error:
        raise TradingError(ErrorCode.PAYLOAD_TOO_LARGE, f"A message {error}. {HOW_TO}") from None
    except JsonRefusedError as error:
        raise validation_failed("message", None, str(error), f"A message {error}. {HOW_TO}") from None


def refuse_type(message: dict[str, Any]) -> NoReturn:
    """Raise VALIDATION_FAILED for a message whose type is none that we know."""
    raise validation_failed(
        "type",
        message.get("type"),
        "auth, subscribe, unsubscribe or ping",
        f"The type of the message is not known. {HOW_TO}",
    )


def token_of(message: dict[str, Any]) -> str:
    """The token of an auth message; the error never repeats it."""
    token = message.get("token")
    if not isinstance(token, str) or not 0 < len(token) <= TOKEN_CHARACTERS_MAX:
        raise validation_failed("token", None, "text", 'Send your access token: {"type":"auth","token":"..."}.')
    return token


def subscribe_of(message: dict[str, Any]) -> Subscribe:
    """The subscription that a message asks for; VALIDATION_FAILED names the field that is wrong."""
    channels = _channels(message)
    if not channels:
        raise validation_failed("channels", None, "not empty", f"Name at least one channel: {', '.join(CHANNELS)}.")
    return Subscribe(channels, _symbols(message), _since(message), _account_id(message))


def unsubscribe_of(message: dict[str, Any]) -> Unsubscribe:
    """What a message gives up; VALIDATION_FAILED names the field that is wrong."""
    return Unsubscribe(_channels(message), _symbols(message))


def _channels(message: dict[str, Any]) -> tuple[str, ...]:
    channels = _words(message, "channels", count_max=len(CHANNELS))
    for channel in channels:
        if channel not in CHANNELS:
            raise validation_failed("channels", channel, "a known channel", f"Channels are {', '.join(CHANNELS)}.")
    return channels


def _symbols(message: dict[str, Any]) -> tuple[str, ...]:
    symbols = _words(message, "symbols", count_max=SYMBOLS_MAX)
    for symbol in symbols:
        if not _SYMBOL.fullmatch(symbol):
            raise validation_failed("symbols", symbol, "a symbol", "Symbols look like EURUSD: A to Z, 0 to 9 and _.")
    return symbols


def _words(message: dict[str, Any], field: str, *, count_max: int) -> tuple[str, ...]:
    """A list of text, without repeats."""
    given: Any = message.get(field)
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(word, str) for word in cast("list[Any]", given)):
        raise validation_failed(field, None, "a list of text", f"Send {field} as a list of text.")
    words = tuple(dict.fromkeys(cast("Sequence[str]", given)))
    if len(words) > count_max:
        raise validation_failed(field, len(words), f"at most {count_max}", f"Send {count_max} {field} at most.")
    return words


def _since(message: dict[str, Any]) -> int | None:
    since: Any = message.get("since")
    if since is None:
        return None
    if isinstance(since, bool) or not isinstance(since, int) or not 0 <= since <= SEQUENCE_MAX:
        raise validation_failed(
            "since", since, "a sequence", "Send since as the sequence of the last frame that you have, or 0 for all."
        )
    return since


def _account_id(message: dict[str, Any]) -> UUID | None:
    given: Any = message.get("account_id")
    if given is None:
        return None
    try:
        return UUID(given)
    except (ValueError, AttributeError, TypeError):
        raise validation_failed("account_id", given, "a UUID", "Send account_id as its UUID.") from None
