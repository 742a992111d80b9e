"""The Redis client: short timeouts, no retries, and a breaker, because Redis is a helper and never the truth."""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from trading.secrets import redis_url
from trading.settings import settings

if TYPE_CHECKING:
    from redis import Redis
    from redis.connection import ConnectionInterface

BREAKER_SECONDS = 3.0
CONNECTIONS_MAX = 64


class CacheUnavailableError(Exception):
    """Redis did not give an answer, or is being left alone for a while after it failed."""


class Script:
    """A Lua script, sent by its digest and in full only to a server that does not know it yet."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Cache:
    """Runs commands on Redis; every failure is a CacheUnavailableError, and the caller always has another way.

    After a failure Redis is skipped for BREAKER_SECONDS, then tried again by one call.
    """

    def __init__(
        self,
        url: Callable[[], str],
        *,
        timeout_ms: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout_seconds = timeout_ms / 1000
        self._clock = clock
        self._client: Redis | None = None
        self._kept: ConnectionInterface | None = None
        self._exchanging = threading.Lock()
        self._closed_until = 0.0

    def run[T](self, action: Callable[["Redis"], T]) -> T:
        """The answer of `action`, which is given the client; CacheUnavailableError when there is none."""
        from redis.exceptions import AuthenticationError, RedisError, ResponseError

        if self._clock() < self._closed_until:
            raise CacheUnavailableError("Redis failed a moment ago")
        try:
            return action(self._connected())
        except ResponseError as error:
            # The server is well and refuses this command: other commands need not be kept away from it.
            raise CacheUnavailableError(str(error)) from error
        except (RedisError, OSError) as error:
            self._closed_until = self._clock() + BREAKER_SECONDS
            if isinstance(error, AuthenticationError):
                # The password was rotated: the next try reads the URL again.
                self.close()
            raise CacheUnavailableError(str(error)) from error

    def run_script(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """The answer of `script`, in one round trip once the server knows it.

        It may run twice, when the connection is lost before the answer has come.
        """
        from redis.exceptions import NoScriptError

        def evaluate(client: "Redis") -> Any:
            try:
                return self._exchange(client, "EVALSHA", script.digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return self._exchange(client, "EVAL", script.source, len(keys), *keys, *arguments)

        return self.run(evaluate)

    def close(self) -> None:
        """Drop the connections; the next command opens new ones and reads the URL again."""
        with self._exchanging:
            if self._client is not None:
                self._client.connection_pool.disconnect()
                self._client = self._kept = None

    def _exchange(self, client: "Redis", *command: str | int) -> Any:
        """Send one command and read its answer on a connection that is kept for scripts.

        To take one from the pool and to give it back costs more than the exchange, which every order makes. One that
        was closed while it was idle shows only now, so the command goes once more on a new one.
        """
        from redis.exceptions import ConnectionError as LostError

        with self._exchanging:
            reused = self._kept is not None
            if self._kept is None:
                self._kept = cast("ConnectionInterface", cast("Any", client.connection_pool).get_connection())
            try:
                return _ask(self._kept, command)
            except LostError:
                if not reused:
                    raise
                return _ask(self._kept, command)

    def _connected(self) -> "Redis":
        if self._client is None:
            from redis import ConnectionPool, Redis
            from redis.backoff import NoBackoff
            from redis.maint_notifications import MaintNotificationsConfig
            from redis.retry import Retry

            pool = ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                self._url(),
                max_connections=CONNECTIONS_MAX,
                socket_timeout=self._timeout_seconds,
                socket_connect_timeout=self._timeout_seconds,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
                # What a connection would otherwise ask and tell before its first command: round trips for nothing.
                protocol=2,
                driver_info=None,
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
            self._client = Redis(connection_pool=pool)
        return self._client


def _ask(connection: "ConnectionInterface", command: Sequence[str | int]) -> Any:
    cast("Any", connection).send_command(*command)
    return connection.read_response()


@lru_cache(maxsize=1)
def cache() -> Cache:
    """The cache of this execution environment."""
    return Cache(redis_url, timeout_ms=settings().redis_timeout_ms)
