"""Recorded quotes: when each is played, what is refused, and that no file is held in memory."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading.quotes.provider import Quote
from trading.quotes.replay import EPOCH, PAUSE, ROWS_MAX, ReplayProvider, open_recording, read_rows
from trading.settings import ConfigurationError

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
TICKS = Path(__file__).parents[4] / "shared" / "data" / "usdjpy-ticks.csv"
PLAIN = """timestamp,bid,ask
2013-01-01 22:00:00.000000+00:00,86.655,86.728
2013-01-01 22:00:02.000000+00:00,86.657,86.729
2013-01-01 22:00:10.000000+00:00,86.660,86.730
"""


def recorded(folder: Path, text: str, name: str = "usdjpy-ticks.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def provider(path: Path, speed: str = "1", start: datetime = START) -> ReplayProvider:
    return ReplayProvider(open_recording(path), speed=Decimal(speed), start=start)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def bids(quotes: list[Quote]) -> dict[str, str]:
    return {quote.symbol: str(quote.bid) for quote in quotes}


def test_each_quote_is_played_when_it_falls_due_and_bears_that_time(tmp_path: Path) -> None:
    playing = provider(recorded(tmp_path, PLAIN))

    assert playing.quotes(["USDJPY"], after(1.5)) == [
        Quote("USDJPY", Decimal("86.655"), Decimal("86.728"), START, "replay")
    ]
    assert playing.quotes(["USDJPY"], after(2)) == [
        Quote("USDJPY", Decimal("86.657"), Decimal("86.729"), after(2), "replay")
    ]
    # silence in the recording is silence here: the last quote grows older
    assert playing.quotes(["USDJPY"], after(9.9))[0].time == after(2)
    assert bids(playing.quotes(["USDJPY"], after(10))) == {"USDJPY": "86.660"}


def test_a_speed_shortens_the_time_between_quotes(tmp_path: Path) -> None:
    playing = provider(recorded(tmp_path, PLAIN), speed="4")

    assert playing.quotes(["USDJPY"], after(0.6))[0].time == after(0.5)
    assert bids(playing.quotes(["USDJPY"], after(2.5))) == {"USDJPY": "86.660"}


def test_after_its_end_it_begins_again(tmp_path: Path) -> None:
    # given a recording of ten seconds, and the pause before it begins again
    playing = provider(recorded(tmp_path, PLAIN))
    period = 10 + PAUSE.total_seconds()
    # when its end, and then the second round is reached
    end = playing.quotes(["USDJPY"], after(period - 0.1))
    again = playing.quotes(["USDJPY"], after(period))
    # then the times go on while the prices begin again
    assert (bids(end), end[0].time) == ({"USDJPY": "86.660"}, after(10))
    assert (bids(again), again[0].time) == ({"USDJPY": "86.655"}, after(period))
    assert playing.quotes(["USDJPY"], after(7 * period + 2))[0].time == after(7 * period + 2)


def test_a_new_copy_goes_on_where_the_one_before_was(tmp_path: Path) -> None:
    path = recorded(tmp_path, PLAIN)
    first = provider(path)
    first.quotes(["USDJPY"], after(1))

    at = after(35.5)

    assert provider(path).quotes(["USDJPY"], at) == first.quotes(["USDJPY"], at)


def test_a_file_may_have_several_symbols_and_gives_no_other(tmp_path: Path) -> None:
    text = (
        "symbol,timestamp,bid,ask\n"
        "eurusd,2026-01-01T00:00:00Z,1.1,1.2\n"
        "GBPUSD,2026-01-01T00:00:00Z,1.3,1.4\n"
        "EURUSD,2026-01-01T01:00:01+01:00,1.5,1.6\n"
    )
    recording = open_recording(recorded(tmp_path, text, "any.csv"))
    playing = ReplayProvider(recording, speed=Decimal(1), start=START)

    assert recording.symbols == {"EURUSD", "GBPUSD"}
    assert bids(playing.quotes(["AAPL", "EURUSD", "GBPUSD"], after(1))) == {"EURUSD": "1.5", "GBPUSD": "1.3"}
    assert playing.quotes(["AAPL"], after(1)) == []


def test_nothing_is_played_before_the_start_nor_when_the_clock_goes_back(tmp_path: Path) -> None:
    playing = provider(recorded(tmp_path, PLAIN))

    assert playing.quotes(["USDJPY"], after(-1)) == []
    assert bids(playing.quotes(["USDJPY"], after(12))) == {"USDJPY": "86.655"}
    assert bids(playing.quotes(["USDJPY"], after(3))) == {"USDJPY": "86.655"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    speed=st.decimals("0.001", "10000", places=3),
    steps=st.lists(st.integers(0, 3_600_000_000), min_size=1, max_size=20),
)
def test_whatever_the_speed_and_the_steps_no_quote_is_of_the_future_and_none_goes_back(
    tmp_path: Path, speed: Decimal, steps: list[int]
) -> None:
    playing = provider(recorded(tmp_path, PLAIN), speed=str(speed))
    now, last = START, EPOCH
    for step in steps:
        now += timedelta(microseconds=step)
        (quote,) = playing.quotes(["USDJPY"], now)
        assert last <= quote.time <= now
        last = quote.time


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "columns"),
        ("time,bid,ask\n", 1, "columns"),
        ("timestamp,bid,ask,ask\n", 1, "columns"),
        ("timestamp,bid,ask,volume\n", 1, "columns"),
        ("timestamp,bid,ask\n", 2, "no quote"),
        (PLAIN + "2013-01-01 22:00:10+00:00,86.660\n", 5, "fields"),
        (PLAIN + "yesterday,86.660,86.661\n", 5, "timestamp"),
        (PLAIN + "2013-01-01 22:00:11,86.660,86.661\n", 5, "offset"),
        (PLAIN + "2013-01-01 22:00:09+00:00,86.660,86.661\n", 5, "before"),
        (PLAIN + "\n2013-01-01 22:00:11+00:00,nan,86.661\n", 6, "numbers"),
        (PLAIN + "2013-01-01 22:00:11+00:00,1e2,1e3\n", 5, "numbers"),
        (PLAIN + "2013-01-01 22:00:11+00:00,0,86.661\n", 5, "numbers"),
        (PLAIN + "2013-01-01 22:00:11+00:00,86.662,86.661\n", 5, "numbers"),
        (PLAIN + "x" * 200_000 + "\n", 5, "fields"),
        (PLAIN + '"' + "x\n" * 200_000, 66_000, "CSV"),
        ("timestamp,bid,ask,symbol\n2013-01-01 22:00:11+00:00,1,2,EUR/USD\n", 2, "symbol"),
    ],
)
def test_a_malformed_file_is_refused_by_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = recorded(tmp_path, text)

    with pytest.raises(ConfigurationError, match=what) as caught:
        open_recording(path)

    named = int(str(caught.value).partition("line ")[2].partition(":")[0])
    assert abs(named - line) <= (600 if line > 1000 else 0)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    binary = tmp_path / "eurusd.csv"
    binary.write_bytes(b"timestamp,bid,ask\n\xff\xfe\n")

    for path in (tmp_path / "nothing.csv", tmp_path, binary):
        with pytest.raises(ConfigurationError, match="QUOTE_REPLAY_FILE"):
            open_recording(path)


def test_without_a_symbol_column_the_name_says_the_symbol(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        open_recording(recorded(tmp_path, PLAIN, "-ticks.csv"))


def test_a_long_file_is_streamed(tmp_path: Path) -> None:
    # given a file of some megabytes
    path = tmp_path / "usdjpy.csv"
    rows = 60_000
    with path.open("w") as file:
        file.write("timestamp,bid,ask\n")
        for number in range(rows):
            at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
            file.write(f"{at.isoformat()},{86 + number / 1_000_000:.6f},{87 + number / 1_000_000:.6f}\n")
    # when it is checked, and played to its end
    tracemalloc.start()
    provider(path).quotes(["USDJPY"], after(rows))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # then no more than a part of it was held
    assert path.stat().st_size > 2_500_000
    assert peak < 1_000_000


def test_a_file_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ROWS_MAX >= 100_000
    monkeypatch.setattr("trading.quotes.replay.ROWS_MAX", 2)

    with pytest.raises(ConfigurationError, match="cut it"):
        open_recording(recorded(tmp_path, PLAIN))


def test_real_ticks_are_played_as_they_were_recorded() -> None:
    """Every recorded change of price in its order, at a hundred times the speed, through two rounds."""
    if not TICKS.exists():
        pytest.skip(f"{TICKS} is not there to be played")
    recording = open_recording(TICKS)
    assert recording.symbols == {"USDJPY"}
    rows = list(read_rows(TICKS))
    # when it is played so finely that each row has a step of its own
    playing = ReplayProvider(recording, speed=Decimal(100), start=START)
    played: list[Quote] = []
    for round_number in range(2):
        for row in rows:
            offset = round_number * recording.period + recording.offset(row)
            (quote,) = playing.quotes(["USDJPY"], START + timedelta(microseconds=-(-offset // 100)))
            played.append(quote)
    # then prices and distances are those of the recording; rows that fall into one microsecond show the last of them
    prices = [(quote.bid, quote.ask) for quote in played]
    expected = [(row.bid, row.ask) for row in rows]
    assert sum(a != b for a, b in zip(prices, expected * 2, strict=True)) <= 0.01 * len(prices)
    assert prices[len(rows) - 1] == expected[-1]
    length = (rows[-1].time - rows[0].time) / 100
    assert abs((played[len(rows) - 1].time - played[0].time) - length) <= timedelta(microseconds=1)
