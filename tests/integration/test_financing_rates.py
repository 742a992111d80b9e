"""Rates of financing from a file: all of them or none, audited, and wrong ones by their line."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from database import financing_rates
from database.financing_rates import COLUMNS
from local.demo_rates import load_demo_rates
from tests.kit import MigratedTemplate, ScratchDatabase

GOOD = {
    "symbol": "EURUSD",
    "valid_from": "2026-11-25",
    "valid_until": "2026-11-25",
    "long_rate": "-2.5",
    "short_rate": "1",
    "markup": "0.5",
    "basis": "percent_360",
    "source": "provider",
}


@pytest.fixture(scope="module")
def database(migrated: MigratedTemplate) -> Iterator[ScratchDatabase]:
    """One for the module: what is refused leaves nothing."""
    scratch = migrated.clone()
    try:
        yield scratch
    finally:
        scratch.drop()


@pytest.fixture(autouse=True)
def url(database: ScratchDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)


def rates_of(database: ScratchDatabase) -> list[tuple[object, ...]]:
    with database.connect() as connection:
        return connection.execute("SELECT * FROM financing_rates ORDER BY symbol, valid_from").fetchall()


def written(folder: Path, *rows: dict[str, str]) -> str:
    path = folder / "rates.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter[str](file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_a_file_is_taken_once_and_a_correction_is_audited(
    database: ScratchDatabase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = GOOD | {"symbol": "AAPL", "basis": "percent_365"}
    first = financing_rates.main([written(tmp_path, GOOD, other)])
    again = financing_rates.main([written(tmp_path, GOOD, other)])
    corrected = financing_rates.main([written(tmp_path, GOOD, other | {"long_rate": "-7"})])

    assert (first, again, corrected) == (0, 0, 0)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["2", "0", "1"]
    with database.connect() as connection:
        rates = connection.execute("SELECT symbol, long_rate FROM financing_rates ORDER BY symbol").fetchall()
        audited = connection.execute(
            "SELECT actor, jsonb_array_length(details -> 'rates'), reason FROM platform_audit_log "
            "WHERE action = 'FINANCING_RATES_SET' ORDER BY version"
        ).fetchall()
    assert [(symbol, str(rate)) for symbol, rate in rates] == [("AAPL", "-7"), ("EURUSD", "-2.5")]
    assert audited == [("operator", 2, "rates of rates.csv"), ("operator", 1, "rates of rates.csv")]

    # and what the local system would say of all instruments leaves those alone
    with database.connect() as connection:
        load_demo_rates(connection)
        load_demo_rates(connection)
        counts = connection.execute(
            "SELECT count(*) FILTER (WHERE source = 'demo'), count(*), (SELECT count(*) FROM instrument_financing) "
            "FROM financing_rates"
        ).fetchone()
    assert counts is not None
    assert (counts[0] + 2, counts[1]) == (counts[2], counts[2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"symbol": "NONE"}, "a known instrument"),
        ({"valid_until": "2026-11-24"}, "Line 3: valid_until 2026-11-24 is before valid_from 2026-11-25."),
        ({"valid_from": "yesterday"}, "Line 3: Invalid isoformat string"),
        ({"long_rate": "much"}, "Line 3:"),
        ({"short_rate": "NaN"}, "Line 3: rates are numbers"),
        ({"markup": "-1"}, "Line 3: rates are numbers"),
        ({"basis": "percent"}, "Line 3: basis is one of"),
    ],
)
def test_one_wrong_row_keeps_all_out(
    database: ScratchDatabase, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], said: str
) -> None:
    before = rates_of(database)
    first = GOOD | {"symbol": "TSLA", "source": "a wrong file"}

    code = financing_rates.main([written(tmp_path, first, GOOD | {"symbol": "AAPL"} | change)])

    assert code == 2
    assert said in capsys.readouterr().err
    assert rates_of(database) == before


def test_another_file_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.csv").write_text("symbol,rate\nEURUSD,1\n")

    assert financing_rates.main([str(tmp_path / "other.csv")]) == 2
    assert financing_rates.main([str(tmp_path / "none.csv")]) == 2
    assert financing_rates.main([]) == 2
    said = capsys.readouterr().err
    assert "needs the columns symbol, valid_from" in said
    assert "usage" in said
