"""Sliding-window limits per address and per user, counted atomically in Redis, or in PostgreSQL without it.

The same round trip tells who is blocked and whether there is maintenance, and counts what a request is refused for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trading.cache import Cache, CacheUnavailableError, Script
from trading.errors import ErrorCode, TradingError
from trading.guarding.counted_events import AGENTS_KEY, COUNT_EVENT, COUNTED_KEY, NOBODY, Visitor
from trading.guarding.guard_copy import GUARD_KEY, Ends, Standing, block_field, blockable_address, standing_at

WINDOW_SECONDS = 60
RELAY_AWAKE_KEY = "relay:awake"
BLOCKED = "suspicious_activity|blocked"

# Requests a minute; None is not limited (tooling, and only where ALLOW_UNMETERED_TIER honours it).
LIMIT_BY_TIER: Mapping[str, int | None] = {
    "bronze": 10,
    "silver": 20,
    "gold": 50,
    "platinum": 100,
    "unmetered": None,
}

# The log of a key is a list of the times of its counted requests, oldest first. A refused request is not added, and
# the keys after the refusing one are not touched. Redis has the only clock, so that workers cannot disagree. An address
# that is blocked ends it before anything is counted but that it came.
# KEYS: relay state, the guard's copy, counted events, their agents, then the limited keys in their order.
# ARGV: window in µs, the address's field of the copy, subject, agent, offence or '', then limit and what is limited for
# each limited key.
# Answer: relay state, now in µs, index of the refusing key (0: none), whether there is a copy, the ends of a block, of
# maintenance and of full maintenance in µs (0: none), then used and oldest in µs for each key seen; one text with
# spaces between them, which is read in half the time that a list takes.
TAKE = Script(
    COUNT_EVENT
    + f"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[1])
local guard = redis.call('HMGET', KEYS[2], 'version', ARGV[2], 'maintenance', 'full_maintenance')
local answer = {{
    redis.call('EXISTS', KEYS[1]), string.format('%.0f', now), 0, guard[1] and 1 or 0, guard[2] or 0, guard[3] or 0,
    guard[4] or 0
}}
if tonumber(guard[2] or '0') > now then
    count_event(KEYS[3], KEYS[4], now, '{BLOCKED}', ARGV[3], ARGV[4])
    return table.concat(answer, ' ')
end
local offence = ARGV[5]
for i = 5, #KEYS do
    local key, limit = KEYS[i], tonumber(ARGV[2 * i - 4])
    local oldest = redis.call('LINDEX', key, 0)
    while oldest and tonumber(oldest) <= now - window do
        redis.call('LPOP', key)
        oldest = redis.call('LINDEX', key, 0)
    end
    local used = redis.call('LLEN', key)
    if used >= limit then
        answer[3] = i - 4
        offence = 'rate_limit_exceeded|' .. ARGV[2 * i - 3]
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
if offence ~= '' then
    count_event(KEYS[3], KEYS[4], now, offence, ARGV[3], ARGV[4])
end
return table.concat(answer, ' ')
"""
)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `limit` counted requests of `key` in any WINDOW_SECONDS; `of` says what is limited."""

    key: str
    limit: int
    of: str = "user"


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
    one entry for each limit seen: none for an address that is blocked.
    """

    refused: int | None
    standings: tuple[RateLimit, ...]
    relay_awake: bool
    guard: Standing


type Fallback = Callable[[Sequence[Limit], int, Visitor], Mapping[str, Any]]


class RateLimiter:
    """Counts requests by one script in Redis; by `fallback`, a call of the database, while Redis is gone."""

    def __init__(
        self, cache: Cache, fallback: Fallback, *, on_fallback: Callable[[CacheUnavailableError], None] | None = None
    ) -> None:
        self._cache = cache
        self._fallback = fallback
        self._on_fallback = on_fallback

    def take(self, limits: Sequence[Limit], visitor: Visitor = NOBODY) -> Taken:
        """Count one request. TradingError DATABASE_UNAVAILABLE when neither store can: nothing passes uncounted."""
        try:
            answer = self._cache.run_script(TAKE, _keys(limits), _arguments(limits, visitor))
        except CacheUnavailableError as error:
            if self._on_fallback is not None:
                self._on_fallback(error)
            return _from_database(limits, self._fallback(limits, WINDOW_SECONDS, visitor))
        return _from_redis(limits, answer)


def address_key(source_ip: str) -> str:
    """The key of an address."""
    return f"rate_limit:ip:{blockable_address(source_ip) or source_ip[:64]}"


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


def _keys(limits: Sequence[Limit]) -> list[str]:
    return [RELAY_AWAKE_KEY, GUARD_KEY, COUNTED_KEY, AGENTS_KEY, *(limit.key for limit in limits)]


def _arguments(limits: Sequence[Limit], visitor: Visitor) -> list[str | int]:
    field = block_field(visitor.address)
    arguments: list[str | int] = [
        WINDOW_SECONDS * 1_000_000,
        field,
        visitor.subject,
        visitor.agent,
        visitor.offence or "",
    ]
    for limit in limits:
        arguments += (limit.limit, limit.of)
    return arguments


def _from_redis(limits: Sequence[Limit], answer: str) -> Taken:
    awake, now, refused, copied, blocked_until, maintenance_until, full_until, *seen = map(int, answer.split())
    standings = tuple(
        _standing(limit, used, oldest, now) for limit, used, oldest in zip(limits, seen[::2], seen[1::2], strict=False)
    )
    ends = Ends(blocked_until, maintenance_until, full_until)
    guard = standing_at(now, ends) if copied else Standing(known=False)
    return Taken(refused - 1 if refused else None, standings, relay_awake=awake == 1, guard=guard)


def _from_database(limits: Sequence[Limit], answer: Mapping[str, Any]) -> Taken:
    now = int(answer["now_us"])
    standings = tuple(
        _standing(limit, int(seen["used"]), int(seen["oldest_us"]), now)
        for limit, seen in zip(limits, answer["seen"], strict=False)
    )
    ends = Ends(answer["blocked_until_us"], answer["maintenance_until_us"], answer.get("full_maintenance_until_us"))
    return Taken(answer["refused"], standings, relay_awake=False, guard=standing_at(now, ends))


def _standing(limit: Limit, used: int, oldest_us: int, now_us: int) -> RateLimit:
    free_at_us = oldest_us + WINDOW_SECONDS * 1_000_000
    return RateLimit(
        limit=limit.limit,
        remaining=max(0, limit.limit - used),
        reset=math.ceil(free_at_us / 1_000_000),
        retry_after=max(1, math.ceil((free_at_us - now_us) / 1_000_000)),
    )
