"""Recorded quotes, played again: a CSV file at a chosen speed, over and over."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from trading.quotes.provider import Quote
from trading.settings import ConfigurationError

COLUMNS = ("timestamp", "bid", "ask")
SYMBOL_COLUMN = "symbol"
# The file is read once to check it, and once more by each copy of the feed to find its place: a second or two.
ROWS_MAX = 500_000
LINE_CHARACTERS_MAX = 1_000
# Of the recording's time, between its last quote and its first one again.
PAUSE = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SYMBOL = re.compile(r"[A-Z0-9_]{1,20}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,12})?", re.ASCII)


class Lines(Protocol):
    """What csv.reader gives."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded quote, at its own time."""

    symbol: str
    time: datetime
    bid: Decimal
    ask: Decimal


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that has been checked from end to end: which symbols it has, from when to when."""

    path: Path
    symbols: frozenset[str]
    first: datetime
    last: datetime

    @property
    def period(self) -> int:
        """Microseconds from one beginning to the next, at the recording's own speed."""
        return (self.last - self.first + PAUSE) // MICROSECOND

    def offset(self, row: Row) -> int:
        """Microseconds from the beginning to `row`."""
        return (row.time - self.first) // MICROSECOND


class ReplayProvider:
    """Plays a recording from `start` on, `speed` times as fast, again from its beginning whenever it has ended.

    Which row is due is a matter of the clock alone, so the next copy of a feed goes on where the one before was. A
    quote bears the time at which its row fell due. What is silent in the recording is silent here, and grows stale;
    symbols that it has not get no quote. The file is streamed: one row a symbol is kept.
    """

    def __init__(self, recording: Recording, *, speed: Decimal, start: datetime = EPOCH) -> None:
        self._recording = recording
        self._speed = Fraction(speed)
        self._start = start
        self._round = -1
        self._rows: Iterator[Row] = iter(())
        self._ahead: Row | None = None
        self._newest: dict[str, Quote] = {}

    @property
    def name(self) -> str:
        """The mark of recorded prices."""
        return "replay"

    def quotes(self, symbols: Sequence[str], now: datetime) -> list[Quote]:
        """The last quote of each of `symbols` that fell due before `now`."""
        played = (now - self._start) // MICROSECOND * self._speed
        if played >= 0:
            self._play_to(int(played // self._recording.period), int(played % self._recording.period))
        return [self._newest[symbol] for symbol in symbols if symbol in self._newest]

    def set_by_hand(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        """A recording goes on as it was recorded: its next quote takes the price over."""

    def _play_to(self, number: int, offset: int) -> None:
        """Everything that is due by `offset` (microseconds) of the round `number`; a clock set back plays nothing."""
        if number > self._round:
            self._play_rows(self._recording.period)
            self._round = number
            self._rows = read_rows(self._recording.path)
            self._ahead = next(self._rows, None)
        if number == self._round:
            self._play_rows(offset)

    def _play_rows(self, offset: int) -> None:
        while self._ahead is not None and self._recording.offset(self._ahead) <= offset:
            self._newest[self._ahead.symbol] = self._as_played(self._ahead)
            self._ahead = next(self._rows, None)

    def _as_played(self, row: Row) -> Quote:
        recorded = self._round * self._recording.period + self._recording.offset(row)
        due = -(-recorded // self._speed)  # up to the next whole microsecond
        return Quote(row.symbol, row.bid, row.ask, self._start + due * MICROSECOND, self.name)


def open_recording(path: Path) -> Recording:
    """Check the file at `path`; ConfigurationError says what is wrong with it, and in which line.

    Columns timestamp (ISO 8601 with its offset, never going back), bid, ask and perhaps symbol, by which the file may
    have several; without it the file's name begins with its symbol, as in usdjpy-ticks.csv.
    """
    symbols: set[str] = set()
    first = last = None
    for count, row in enumerate(read_rows(path), start=1):
        if count > ROWS_MAX:
            raise ConfigurationError(f"QUOTE_REPLAY_FILE: {path} has more than {ROWS_MAX} quotes: cut it into parts")
        symbols.add(row.symbol)
        first = first or row.time
        last = row.time
    if first is None or last is None:
        raise _wrong(path, 2, "it has no quote")
    return Recording(path, frozenset(symbols), first, last)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file one by one; ConfigurationError as `open_recording`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(iter(lambda: file.readline(LINE_CHARACTERS_MAX), ""))
            try:
                yield from _rows(path, lines)
            except csv.Error as error:
                raise _wrong(path, lines.line_num, f"it is no line of a CSV: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"QUOTE_REPLAY_FILE: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"QUOTE_REPLAY_FILE: {path} is no text in UTF-8") from None


def _rows(path: Path, lines: Lines) -> Iterator[Row]:
    header = [name.strip().lower() for name in next(lines, list[str]())]
    symbol_of = _symbol_reader(path, header)
    places = [header.index(name) for name in COLUMNS]
    before = datetime.min.replace(tzinfo=UTC)
    for fields in lines:
        line = lines.line_num
        if not fields:
            continue
        if len(fields) != len(header):
            raise _wrong(path, line, f"it has {len(fields)} fields, the first line has {len(header)}")
        time, bid, ask = (fields[place].strip() for place in places)
        row = Row(symbol_of(fields, line), _time(path, line, time), *_prices(path, line, bid, ask))
        if row.time < before:
            raise _wrong(path, line, "its timestamp is before that of the line above")
        before = row.time
        yield row


def _symbol_reader(path: Path, header: Sequence[str]) -> Callable[[Sequence[str], int], str]:
    """How a row's symbol is found: by its column, else by the file's name."""
    known = {*COLUMNS, SYMBOL_COLUMN}
    if len(set(header)) != len(header) or not set(COLUMNS) <= set(header) <= known:
        raise _wrong(path, 1, "the first line names the columns: timestamp,bid,ask and perhaps symbol")
    if SYMBOL_COLUMN in header:
        place = header.index(SYMBOL_COLUMN)

        def by_column(fields: Sequence[str], line: int) -> str:
            symbol = fields[place].strip().upper()
            if not _SYMBOL.fullmatch(symbol):
                raise _wrong(path, line, "its symbol is not 1 to 20 letters, digits and underscores")
            return symbol

        return by_column
    named = _SYMBOL.match(path.name.upper())
    if named is None:
        raise _wrong(path, 1, "without a column symbol the file's name begins with it, as in eurusd-ticks.csv")
    return lambda _fields, _line: named.group()


def _time(path: Path, line: int, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _wrong(path, line, "its timestamp is no time in ISO 8601 with an offset")
    return time


def _prices(path: Path, line: int, bid: str, ask: str) -> tuple[Decimal, Decimal]:
    plain = _NUMBER.fullmatch(bid) and _NUMBER.fullmatch(ask)
    if not plain or not 0 < Decimal(bid) <= Decimal(ask):
        raise _wrong(path, line, "bid and ask are plain numbers above 0, the ask not below the bid")
    return Decimal(bid), Decimal(ask)


def _wrong(path: Path, line: int, what: str) -> ConfigurationError:
    return ConfigurationError(f"QUOTE_REPLAY_FILE: {path}, line {line}: {what}")
