"""The issuer's public keys (JWKS): fetched seldom, kept while the issuer is down."""

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, cast

from trading.edge.authentication import UnknownKeyError
from trading.errors import ErrorCode, TradingError

FETCH_TIMEOUT_SECONDS = 2.0
FETCH_PAUSE_SECONDS = 30.0
KEYS_SECONDS = 3600.0
BYTES_MAX = 256 * 1024
KEYS_MAX = 64

_FAMILY = {"RS256": "RSA", "ES256": "EC"}

type Fetch = Callable[[str], Mapping[str, Any]]


class SigningKeys:
    """Finds a token's key by its `kid`.

    The set is fetched again when it is KEYS_SECONDS old or lacks a `kid`, at most once in FETCH_PAUSE_SECONDS, so
    that forged `kid`s cannot make us hammer the issuer. When a fetch fails, the keys known before stay in use.
    """

    def __init__(
        self, url: str, algorithm: str, *, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._algorithm = algorithm
        self._fetch = fetch or fetch_keys
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None

    def find(self, kid: str | None) -> Any:
        """The public key named `kid`; UnknownKeyError, or MAINTENANCE when no keys could ever be fetched."""
        if kid is None:
            raise UnknownKeyError("the token names no key")
        now = self._clock()
        old = self._fetched_at is None or now - self._fetched_at >= KEYS_SECONDS
        if old or kid not in self._keys:
            self._refresh(now)
        if self._fetched_at is None:
            raise TradingError(
                ErrorCode.MAINTENANCE,
                "Sign-in cannot be checked at the moment. Try again shortly.",
                retry_after=int(FETCH_PAUSE_SECONDS),
            )
        if kid not in self._keys:
            raise UnknownKeyError(kid[:100])
        return self._keys[kid]

    def _refresh(self, now: float) -> None:
        if self._tried_at is not None and now - self._tried_at < FETCH_PAUSE_SECONDS:
            return
        self._tried_at = now
        try:
            self._keys = _usable(self._fetch(self._url), self._algorithm)
            self._fetched_at = now
        except (OSError, ValueError):
            from trading.observability import logger

            logger().exception("the issuer's signing keys could not be fetched")


def fetch_keys(url: str) -> Mapping[str, Any]:
    """The JWKS document at `url`; OSError or ValueError when there is none."""
    opener = urllib.request.build_opener(_NoRedirects())
    with opener.open(url, timeout=FETCH_TIMEOUT_SECONDS) as answer:
        text = answer.read(BYTES_MAX + 1)
    if len(text) > BYTES_MAX:
        raise ValueError("the set of keys is too large")
    document: Any = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("not a set of keys")
    return cast("dict[str, Any]", document)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _usable(document: Mapping[str, Any], algorithm: str) -> dict[str, Any]:
    """The keys that may sign with `algorithm`, by `kid`."""
    import jwt

    entries: Any = document.get("keys")
    keys: dict[str, Any] = {}
    for entry in cast("list[Any]", entries)[:KEYS_MAX] if isinstance(entries, list) else []:
        if _fits(entry, algorithm):
            try:
                keys[entry["kid"]] = jwt.PyJWK(entry, algorithm=algorithm).key
            except jwt.PyJWTError:
                continue  # one malformed key must not take the others away
    if not keys:
        raise ValueError(f"the set holds no key for {algorithm}")
    return keys


def _fits(entry: Any, algorithm: str) -> bool:
    """Whether `entry` is a named public key meant for signatures by `algorithm`."""
    if not isinstance(entry, dict):
        return False
    key = cast("dict[str, Any]", entry)
    return (
        key.get("kty") == _FAMILY[algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and isinstance(key.get("kid"), str)
    )
