"""What is remembered outside the database for the time that it is silent: the rules, since when, and who was told.

Redis shares it between execution environments; each keeps it too, for the time that Redis is gone as well.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from trading.alerts import LAST_RESORT, RuleBook, rule_book
from trading.cache import Cache, CacheUnavailableError, cache
from trading.json_text import json_text
from trading.store.alerts import Told

if TYPE_CHECKING:
    from redis import Redis

RULES_KEY = "alerts:rules"
OUTAGE_KEY = "alerts:outage"
KEPT_SECONDS = 7 * 86_400


@dataclass(slots=True)
class Outage:
    """A silence of the database."""

    since: datetime
    told: list[Told] = field(default_factory=list[Told])


class OutageMemory:
    """Remembers in Redis and in this process. Without Redis two copies may each tell; a message twice is no harm."""

    def __init__(self, shared: Cache) -> None:
        self._shared = shared
        self._rules: str | None = None
        self._outage: Outage | None = None

    def keep_rules(self, book: RuleBook) -> None:
        """Remember `book`."""
        text = json_text(_plain(book))
        if text != self._rules:
            self._try(lambda client: client.set(RULES_KEY, text, ex=KEPT_SECONDS))
            self._rules = text

    def rules(self) -> RuleBook:
        """The rules that were read last, or those for when none ever were."""
        text = self._rules or self._try(lambda client: cast("str | None", client.get(RULES_KEY)))
        return rule_book(json.loads(text, parse_float=Decimal) if text else LAST_RESORT)

    def outage(self) -> Outage | None:
        """The silence that is not booked yet, if there is one."""
        since = self._try(lambda client: cast("str | None", client.get(OUTAGE_KEY)))
        if since is None:
            return self._outage
        texts = self._try(lambda client: cast("list[str]", client.lrange(f"{OUTAGE_KEY}:told", 0, -1))) or []
        return Outage(datetime.fromisoformat(since), [Told(**json.loads(text)) for text in texts])

    def begin(self, at: datetime) -> Outage:
        """The silence that goes on, or one that begins at `at`."""
        known = self.outage()
        if known is None:
            known = Outage(at)
            # Another copy may have begun it a moment ago.
            self._try(lambda client: client.set(OUTAGE_KEY, at.isoformat(), nx=True, ex=KEPT_SECONDS))
            known = self.outage() or known
        self._outage = known
        return known

    def may_tell(self, level: int, channel: str) -> bool:
        """Whether it is this copy that tells `channel` of `level`."""
        place = f"{OUTAGE_KEY}:{level}:{channel}"
        taken = self._try(lambda client: client.set(place, "1", nx=True, ex=KEPT_SECONDS) is not None)
        known = self._outage.told if self._outage else []
        return taken is not False and not any(each.level == level and each.channel == channel for each in known)

    def note(self, told: Told) -> None:
        """Remember that somebody was told."""
        if self._outage is not None:
            self._outage.told.append(told)
        text = json_text(asdict(told))
        self._try(lambda client: client.rpush(f"{OUTAGE_KEY}:told", text))
        self._try(lambda client: client.expire(f"{OUTAGE_KEY}:told", KEPT_SECONDS))

    def end(self) -> None:
        """Forget the silence: it is booked."""
        self._outage = None

        def forget(client: "Redis") -> None:
            for key in cast("Any", client).scan_iter(f"{OUTAGE_KEY}*"):
                client.delete(key)

        self._try(forget)

    def _try[T](self, action: "Callable[[Redis], T]") -> T | None:
        try:
            return self._shared.run(action)
        except CacheUnavailableError:
            return None


@lru_cache(maxsize=1)
def outage_memory() -> OutageMemory:
    """The memory of this execution environment."""
    return OutageMemory(cache())


def _plain(book: RuleBook) -> dict[str, Any]:
    """The book in the form that `rule_book` reads."""
    return {
        "rules": [asdict(rule) for rule in book.rules],
        "escalations": [asdict(each) for each in book.escalations],
        "channels": [{"name": name, "fallback": fallback} for name, fallback in book.fallbacks.items()],
    }
