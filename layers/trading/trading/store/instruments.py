"""The instruments that are traded, read from the database and kept for a minute."""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from trading.instruments import Instrument
from trading.store.connection import database
from trading.store.database import Database

INSTRUMENTS_AGE_SECONDS_MAX = 60


class InstrumentCatalogue:
    """The allow-list of symbols, at most `INSTRUMENTS_AGE_SECONDS_MAX` old by `clock` (in seconds)."""

    def __init__(self, source: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._read_at: float | None = None
        self._instruments: Mapping[str, Instrument] = {}

    def find(self, symbol: str) -> Instrument | None:
        """The instrument of `symbol`, None for one that is not traded."""
        return self.all().get(symbol)

    def all(self) -> Mapping[str, Instrument]:
        """All traded instruments by symbol; DATABASE_UNAVAILABLE when they have to be read and cannot be."""
        now = self._clock()
        if self._read_at is None or now - self._read_at > INSTRUMENTS_AGE_SECONDS_MAX:
            rows = self._source.fetch_all("SELECT * FROM list_instruments()")
            self._instruments = {row["symbol"]: Instrument.from_row(row) for row in rows}
            self._read_at = now
        return self._instruments


@lru_cache(maxsize=1)
def instrument_catalogue() -> InstrumentCatalogue:
    """The catalogue of this execution environment."""
    return InstrumentCatalogue(database())
