"""Redis's copy of who is blocked and whether there is maintenance; PostgreSQL has the truth.

The copy is one hash that is replaced as a whole by a newer version, never by an older one. Every entry carries its own
end, so that what is over stops to bind without anybody's help. Where the hash is missing, as after a restart of Redis,
whoever needs it reads the truth and puts it back.
"""

import contextlib
import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from trading.cache import Cache, CacheUnavailableError, Script
from trading.errors import ErrorCode, TradingError

GUARD_KEY = "edge:guard"
# A copy that nobody has renewed for this long is taken for missing.
COPY_SECONDS = 600
# How long a failed read of the truth is not repeated.
PAUSE_SECONDS = 5.0
ADDRESSES_REMEMBERED_MAX = 1024

# KEYS: the copy. ARGV: version, seconds it is good for, then fields and values.
_COPY = Script("""
if tonumber(redis.call('HGET', KEYS[1], 'version') or '-1') > tonumber(ARGV[1]) then
    return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', ARGV[1])
for i = 3, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")


@dataclass(frozen=True, slots=True)
class Ends:
    """Until when something binds, in µs since 1970; None or a past one for not at all.

    `full_maintenance` is of maintenance in which nothing changes at all; it is `maintenance` too.
    """

    block: int | None
    maintenance: int | None
    full_maintenance: int | None


@dataclass(frozen=True, slots=True)
class Truth:
    """What binds at the edge; ends are in µs since 1970, those of maintenance as in `Ends`."""

    version: int
    maintenance_until_us: int | None
    blocks: Mapping[str, int]
    full_maintenance_until_us: int | None = None

    def ends_for(self, address: str) -> Ends:
        """What binds a request from `address`."""
        return Ends(self.blocks.get(address), self.maintenance_until_us, self.full_maintenance_until_us)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the edge stands to one request: until when its address is blocked, and until when there is maintenance.

    In seconds from now, None for neither. Not `known`: there was no copy to look at.
    """

    known: bool
    blocked_seconds: int | None = None
    maintenance_seconds: int | None = None
    full_maintenance_seconds: int | None = None


@lru_cache(maxsize=ADDRESSES_REMEMBERED_MAX)
def blockable_address(source_ip: str) -> str:
    """The address that is counted and blocked for `source_ip`: a host with IPv6 usually has a whole /64.

    Empty for what is no address.
    """
    try:
        address = ipaddress.ip_address(source_ip)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        address = ipaddress.ip_network((int(address), 64), strict=False).network_address
    return str(address)


def block_field(address: str) -> str:
    """The field of the copy that holds the end of an address's block."""
    return f"ip:{address}"


def standing_at(now_us: int, ends: Ends) -> Standing:
    """How it stands at `now_us`."""
    return Standing(
        True,
        _seconds_left(ends.block, now_us),
        _seconds_left(ends.maintenance, now_us),
        _seconds_left(ends.full_maintenance, now_us),
    )


class GuardCopy:
    """Looks after the copy; `read` asks the database and raises TradingError when it does not answer."""

    def __init__(
        self,
        cache: Cache,
        read: Callable[[], Truth],
        *,
        on_unknown: Callable[[TradingError], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._read = read
        self._on_unknown = on_unknown
        self._clock = clock
        self._paused_until = 0.0

    def settle(self, standing: Standing, address: str) -> Standing:
        """`standing`, or how it is by the truth where that is not known; then the copy is put back.

        With neither copy nor database nobody is blocked: what such a request could do without a database is to look
        at a price.
        """
        now = self._clock()
        if standing.known or now < self._paused_until:
            return standing
        try:
            truth = self.renew()
        except TradingError as error:
            if error.code is not ErrorCode.DATABASE_UNAVAILABLE:
                raise
            self._paused_until = now + PAUSE_SECONDS
            if self._on_unknown is not None:
                self._on_unknown(error)
            return standing
        return standing_at(round(now * 1_000_000), truth.ends_for(address))

    def renew(self) -> Truth:
        """Read the truth and make the copy say it; without Redis it is read alone."""
        truth = self._read()
        fields: list[str | int] = [truth.version, COPY_SECONDS]
        if truth.maintenance_until_us is not None:
            fields += ["maintenance", truth.maintenance_until_us]
        if truth.full_maintenance_until_us is not None:
            fields += ["full_maintenance", truth.full_maintenance_until_us]
        for address, until_us in truth.blocks.items():
            fields += [block_field(address), until_us]
        # Without Redis each request asks the database itself.
        with contextlib.suppress(CacheUnavailableError):
            self._cache.run_script(_COPY, [GUARD_KEY], fields)
        return truth


def _seconds_left(until_us: int | None, now_us: int) -> int | None:
    if until_us is None or until_us <= now_us:
        return None
    return -((now_us - until_us) // 1_000_000)
