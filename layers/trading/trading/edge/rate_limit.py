"""Sliding-window limits per address and per user, counted atomically in Redis, or in PostgreSQL without it."""

import ipaddress
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trading.cache import Cache, CacheUnavailableError, Script
from trading.errors import ErrorCode, TradingError

WINDOW_SECONDS = 60
RELAY_AWAKE_KEY = "relay:awake"
ADDRESSES_REMEMBERED_MAX = 1024

# Requests a minute; None is not limited (tooling, and only where ALLOW_UNMETERED_TIER honours it).
LIMIT_BY_TIER: Mapping[str, int | None] = {
    "bronze": 10,
    "silver": 20,
    "gold": 50,
    "platinum": 100,
    "unmetered": None,
}

# The log of a key is a list of the times of its counted requests, oldest first. A refused request is not added, and
# the keys after the refusing one are not touched. Redis has the only clock, so that workers cannot disagree.
# KEYS: relay state, then the limited keys in their order. ARGV: window in µs, then a limit per limited key.
# Answer: relay state, now in µs, index of the refusing key (0: none), then used and oldest in µs for each key seen; one
# text with spaces between them, which is read in half the time that a list takes.
TAKE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[1])
local answer = {redis.call('EXISTS', KEYS[1]), string.format('%.0f', now), 0}
for i = 2, #KEYS do
    local key, limit = KEYS[i], tonumber(ARGV[i])
    local oldest = redis.call('LINDEX', key, 0)
    while oldest and tonumber(oldest) <= now - window do
        redis.call('LPOP', key)
        oldest = redis.call('LINDEX', key, 0)
    end
    local used = redis.call('LLEN', key)
    if used >= limit then
        answer[3] = i - 1
    else
        redis.call('RPUSH', key, string.format('%.0f', now))
        redis.call('PEXPIRE', key, window / 1000)
        used = used + 1
    end
    answer[#answer + 1] = used
    answer[#answer + 1] = oldest or string.format('%.0f', now)
    if answer[3] > 0 then
        break
    end
end
return table.concat(answer, ' ')
""")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `limit` counted requests of `key` in any WINDOW_SECONDS."""

    key: str
    limit: int


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How a key stands after this request.

    `remaining` requests are left; a place becomes free at `reset` (epoch second), in `retry_after` seconds.
    """

    limit: int
    remaining: int
    reset: int
    retry_after: int

    def headers(self) -> dict[str, str]:
        """The X-RateLimit headers."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome of counting one request against several limits, in their order.

    `refused` is the index of the limit that refused it; limits after that one were not looked at. `standings` has
    one entry for each limit seen.
    """

    refused: int | None
    standings: tuple[RateLimit, ...]
    relay_awake: bool


type Fallback = Callable[[Sequence[Limit], int], Mapping[str, Any]]


class RateLimiter:
    """Counts requests by one script in Redis; by `fallback`, a call of the database, while Redis is gone."""

    def __init__(
        self, cache: Cache, fallback: Fallback, *, on_fallback: Callable[[CacheUnavailableError], None] | None = None
    ) -> None:
        self._cache = cache
        self._fallback = fallback
        self._on_fallback = on_fallback

    def take(self, limits: Sequence[Limit]) -> Taken:
        """Count one request. TradingError DATABASE_UNAVAILABLE when neither store can: nothing passes uncounted."""
        try:
            keys = [RELAY_AWAKE_KEY, *(limit.key for limit in limits)]
            arguments = [WINDOW_SECONDS * 1_000_000, *(limit.limit for limit in limits)]
            answer = self._cache.run_script(TAKE, keys, arguments)
        except CacheUnavailableError as error:
            if self._on_fallback is not None:
                self._on_fallback(error)
            return _from_database(limits, self._fallback(limits, WINDOW_SECONDS))
        return _from_redis(limits, answer)


@lru_cache(maxsize=ADDRESSES_REMEMBERED_MAX)
def address_key(source_ip: str) -> str:
    """The key of an address; a host with IPv6 usually has a whole /64, so that counts as one."""
    try:
        address = ipaddress.ip_address(source_ip)
    except ValueError:
        return f"rate_limit:ip:{source_ip[:64]}"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        address = ipaddress.ip_network((address, 64), strict=False).network_address
    return f"rate_limit:ip:{address}"


def user_key(user_id: object, route_group: str) -> str:
    """The key of a user in a group of routes; the tier is left out, so that changing it starts no new count."""
    return f"rate_limit:{user_id}:{route_group}"


def connection_key(connection_id: str) -> str:
    """The key of a WebSocket connection."""
    return f"rate_limit:connection:{connection_id}"


def exceeded(standing: RateLimit, who: str) -> TradingError:
    """The error for a request that `standing` leaves no room for."""
    return TradingError(
        ErrorCode.RATE_LIMIT_EXCEEDED,
        f"More than {standing.limit} requests a minute {who}. Try again in {standing.retry_after} seconds.",
        {"field": None, "value": None, "constraint": f"{standing.limit} requests in {WINDOW_SECONDS} seconds"},
        retry_after=standing.retry_after,
    )


def _from_redis(limits: Sequence[Limit], answer: str) -> Taken:
    awake, now, refused, *seen = map(int, answer.split())
    standings = tuple(
        _standing(limit, used, oldest, now) for limit, used, oldest in zip(limits, seen[::2], seen[1::2], strict=False)
    )
    return Taken(refused - 1 if refused else None, standings, relay_awake=awake == 1)


def _from_database(limits: Sequence[Limit], answer: Mapping[str, Any]) -> Taken:
    now = int(answer["now_us"])
    standings = tuple(
        _standing(limit, int(seen["used"]), int(seen["oldest_us"]), now)
        for limit, seen in zip(limits, answer["seen"], strict=False)
    )
    return Taken(answer["refused"], standings, relay_awake=False)


def _standing(limit: Limit, used: int, oldest_us: int, now_us: int) -> RateLimit:
    free_at_us = oldest_us + WINDOW_SECONDS * 1_000_000
    return RateLimit(
        limit=limit.limit,
        remaining=max(0, limit.limit - used),
        reset=math.ceil(free_at_us / 1_000_000),
        retry_after=max(1, math.ceil((free_at_us - now_us) / 1_000_000)),
    )
