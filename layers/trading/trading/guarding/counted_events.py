"""Security events, counted at the edge: a flood of requests becomes a bounded number of counts, and rows once a minute.

A count stands under 'second|type|reason|address|user', whose second is the first of ten. Where FIELDS_MAX of them stand
already, an event that is new is lost, and how many were is counted too. The watch takes all of them at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from trading.cache import Cache, CacheUnavailableError, Script

COUNTED_KEY = "security:counted"
AGENTS_KEY = "security:agents"
TAKEN_KEY = "security:taken"
TAKEN_AGENTS_KEY = "security:taken_agents"
FIELDS_MAX = 2000
AGENT_CHARACTERS_MAX = 200
LOST = "lost"
_BATCH = "batch"

# A function of Lua for scripts that count: `subject` is 'address|user'.
COUNT_EVENT = f"""
local function count_event(counted, agents, now, event, subject, agent)
    local second = string.format('%.0f', math.floor(now / 10000000) * 10)
    local field = second .. '|' .. event .. '|' .. subject
    if redis.call('HEXISTS', counted, field) == 0 then
        if redis.call('HLEN', counted) >= {FIELDS_MAX} then
            redis.call('HINCRBY', counted, '{LOST}', 1)
            return
        end
        redis.call('HSET', agents, field, agent)
    end
    redis.call('HINCRBY', counted, field, 1)
end
"""
# KEYS: counts, agents. ARGV: event, subject, agent.
_NOTE = Script(
    COUNT_EVENT
    + """
local time = redis.call('TIME')
count_event(KEYS[1], KEYS[2], time[1] * 1000000 + time[2], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
)
# What was taken stays until it is forgotten, so that a run that ends in between loses nothing: the next one finds it
# with its batch. KEYS: counts, agents, and those that were taken. ARGV: the batch of what is taken now.
_TAKE = Script(f"""
if redis.call('EXISTS', KEYS[3]) == 0 then
    if redis.call('EXISTS', KEYS[1]) == 0 then
        return {{}}
    end
    redis.call('RENAME', KEYS[1], KEYS[3])
    redis.call('HSET', KEYS[3], '{_BATCH}', ARGV[1])
    redis.call('DEL', KEYS[4])
    if redis.call('EXISTS', KEYS[2]) == 1 then
        redis.call('RENAME', KEYS[2], KEYS[4])
    end
end
return {{redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4])}}
""")
# Only the batch that was recorded: another run may have taken the next. KEYS: those that were taken. ARGV: the batch.
_FORGET = Script(f"""
if redis.call('HGET', KEYS[1], '{_BATCH}') == ARGV[1] then
    return redis.call('DEL', KEYS[1], KEYS[2])
end
return 0
""")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whose request it is, as far as that is known.

    `address` is as `guard_copy.blockable_address` makes it, `user_id` that of a verified token. `offence` is the event
    ('type|reason') that the request is, unless it is refused before that matters.
    """

    address: str = ""
    user_id: UUID | None = None
    user_agent: str = ""
    offence: str | None = None

    @property
    def subject(self) -> str:
        """'address|user'."""
        return f"{self.address}|{self.user_id or ''}"

    @property
    def agent(self) -> str:
        """The user agent in printable ASCII, cut to what is kept."""
        text = self.user_agent[:AGENT_CHARACTERS_MAX]
        if text.isascii() and text.isprintable():
            return text
        return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)

    def as_request(self) -> dict[str, object]:
        """What the database's procedures take of it."""
        return {
            "address": self.address,
            "user_id": self.user_id,
            "user_agent": self.agent,
            "offence": self.offence,
        }


NOBODY = Visitor()


@dataclass(frozen=True, slots=True)
class CountedEvents:
    """What was counted since the last time: `counts` and `agents` by field, and how many found no room."""

    batch_id: UUID
    counts: Mapping[str, int]
    agents: Mapping[str, str]
    lost: int


def note_event(cache: Cache, visitor: Visitor, event: str, fallback: Callable[[Visitor, str], None]) -> None:
    """Count what shows only when a request has been judged, such as an id that the caller has nothing under.

    One more round trip, of a refused request; by `fallback` while Redis is gone.
    """
    try:
        cache.run_script(_NOTE, [COUNTED_KEY, AGENTS_KEY], [event, visitor.subject, visitor.agent])
    except CacheUnavailableError:
        fallback(visitor, event)


def take_events(cache: Cache, batch_id: UUID) -> CountedEvents | None:
    """Take what was counted as batch `batch_id`, or what a run before this took and did not record; None for nothing.

    Raises CacheUnavailableError.
    """
    answer: Any = cache.run_script(_TAKE, [COUNTED_KEY, AGENTS_KEY, TAKEN_KEY, TAKEN_AGENTS_KEY], [str(batch_id)])
    if not answer:
        return None
    counted, agents = (dict(zip(pairs[::2], pairs[1::2], strict=True)) for pairs in answer)
    batch, lost = counted.pop(_BATCH), counted.pop(LOST, 0)
    return CountedEvents(UUID(batch), {field: int(count) for field, count in counted.items()}, agents, int(lost))


def forget_events(cache: Cache, batch_id: UUID) -> None:
    """Drop a batch that is recorded. Raises CacheUnavailableError; then it is taken, and recorded, again in vain."""
    cache.run_script(_FORGET, [TAKEN_KEY, TAKEN_AGENTS_KEY], [str(batch_id)])
