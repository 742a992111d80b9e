"""The queries of database/queries: known answers on known data, by psql and from Python, as the roles that read."""

import csv
import io
import itertools
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from database.run_query import QUERIES, run_query
from local import commands, environment, reports
from local.environment import State
from local.servers import postgres_programs
from tests.kit import MigratedTemplate, ScratchDatabase, User
from tests.kit.builders import make_position
from tests.kit.orders import Market

DAY = datetime(2026, 3, 2, tzinfo=UTC)
WHOLE_DAY = {
    "from": DAY.isoformat(),
    "to": (DAY + timedelta(days=1)).isoformat(),
    "email": "somebody@example.com",
    "order_id": str(UUID(int=7)),
}
ALWAYS = {"from": "-infinity", "to": "infinity", "email": "somebody@example.com"}
NAMES = sorted(file.stem for file in QUERIES.glob("*.sql"))
READERS = ("compliance", "backup", "owner")
# What tells other figures each time.
MOVING = {"diagnose_margin", "query_analysis", "replay_order"}
REASON = 'He said "fine", twice\nand left'
# Whoever copies the tables has no use for a diagnosis.
RUNS = [
    (name, role)
    for name in NAMES
    for role in READERS
    if role != "backup" or name not in {"account_risk", "diagnose_margin", "replay_order"}
]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
    finally:
        scratch.drop()


@pytest.fixture(scope="module")
def user(market: Market) -> User:
    """A trader with the orders of one day, and some of other days."""
    user = market.user(email="somebody@example.com")
    noon = DAY + timedelta(hours=12)
    for number in range(6):
        filled(market, user, noon + timedelta(minutes=number), milliseconds=10 * (number + 1))
    filled(market, user, noon, milliseconds=1000, order_type="limit")
    for code, count in (("INSUFFICIENT_MARGIN", 3), ("MARKET_CLOSED", 1)):
        for _ in range(count):
            order(market, user, noon, "denied", failure_code=code, failure_reason=f"for {code}")
    order(market, user, noon, "rejected", failure_code="VENUE_UNAVAILABLE")
    order(market, user, noon, "canceled")
    order(market, user, noon, "new")
    # neither of the day: the last moment before it, the first after it
    order(market, user, DAY - timedelta(microseconds=1), "denied", failure_code="MARKET_CLOSED")
    filled(market, user, DAY + timedelta(days=1), milliseconds=99_000)
    netted(market, noon)
    return user


def order(market: Market, user: User, at: datetime, status: str, **columns: object) -> Any:
    """An order as a row alone; its id."""
    given = {
        "user_id": user.user_id,
        "account_id": user.account_id,
        "symbol": "EURUSD",
        "order_type": "market",
        "side": "buy",
        "quantity": 1,
        "leaves_quantity": 0,
        "status": status,
        "created_at": at,
    } | columns
    statement = f"INSERT INTO orders ({', '.join(given)}) VALUES ({', '.join(['%s'] * len(given))}) RETURNING id"
    return market.execute(statement, list(given.values()))[0][0]


def filled(market: Market, user: User, at: datetime, *, milliseconds: int, order_type: str = "market") -> None:
    """An order executed so long after it came in. Its rows of the audit carry one time, as those of a transaction do;
    when the second was written stands in its id.
    """
    facts: dict[str, object] = {"filled_quantity": 1, "average_price": 1, "executed_at": at}
    facts |= {"limit_price": 1} if order_type == "limit" else {}
    order_id = order(market, user, at, "filled", order_type=order_type, **facts)
    steps = (("SUBMITTED", "pending_new", at), ("FILLED", "filled", at + timedelta(milliseconds=milliseconds)))
    for action, status, written_at in steps:
        market.execute(
            "INSERT INTO order_audit_log (user_id, id, account_id, version, order_id, action, status, reason, details, "
            "previous_hash, hash, hash_version, created_at) SELECT %s, %s, %s, count(*) + 1, %s, %s, %s, %s, "
            "jsonb_build_object('order_type', %s::text), '', '', 1, %s FROM order_audit_log WHERE account_id = %s",
            (
                user.user_id,
                uuid7_at(written_at),
                user.account_id,
                order_id,
                action,
                status,
                REASON if action == "FILLED" else None,
                order_type,
                at,
                user.account_id,
            ),
        )


def netted(market: Market, at: datetime) -> None:
    """A netting account's position of other days' orders, of which a part was closed at that time."""
    user = market.user(position_mode="netting")
    position_id = make_position(market.owner, user, "EURUSD", "long", "1", "1.10", "1100")
    (order_id,) = market.execute("SELECT order_id FROM positions WHERE id = %s", (position_id,))[0]
    fill_ids: list[UUID] = []
    for side, price in (("buy", "1.10"), ("sell", "1.12")):
        rows = market.execute(
            "INSERT INTO fills (user_id, order_id, account_id, position_id, symbol, side, quantity, price, venue, "
            "trade_id, transact_time) VALUES (%s, %s, %s, %s, 'EURUSD', %s, 1, %s, 'internal', %s, %s) RETURNING id",
            (user.user_id, order_id, user.account_id, position_id, side, price, f"{side} of {position_id}", at),
        )
        fill_ids.append(rows[0][0])
    market.execute(
        "INSERT INTO order_audit_log (user_id, account_id, version, order_id, action, status, details, previous_hash, "
        "hash, hash_version, created_at) VALUES (%s, %s, 2, %s, 'FILLED', 'filled', jsonb_build_object('fill_id', "
        "%s::uuid, 'position', jsonb_build_object('entry_price', 1.10)), '', '', 1, clock_timestamp())",
        (user.user_id, user.account_id, order_id, fill_ids[1]),
    )


def uuid7_at(moment: datetime) -> UUID:
    """A new id of that millisecond."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | next(_numbers))


def psql(url: str, name: str, variables: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """The query as a person runs it."""
    file = QUERIES / f"{name}.sql"
    given = [part for variable, value in variables.items() for part in ("-v", f"{variable}={value}")]
    return subprocess.run(
        [postgres_programs() / "psql", url, "-X", "-v", "ON_ERROR_STOP=1", *given, *options, "-f", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestEveryQuery:
    @pytest.mark.parametrize(("name", "role"), RUNS)
    def test_it_runs_by_psql_and_from_python_alike(self, market: Market, user: User, name: str, role: str) -> None:
        by_psql = psql(market.database.url_for(role), name, WHOLE_DAY, "-A", "-t", "-F", "|")
        with market.database.connect(role) as connection:
            tables = run_query(connection, name, WHOLE_DAY)

        assert (by_psql.returncode, by_psql.stderr) == (0, "")
        lines = ["|".join("" if cell is None else str(cell) for cell in row) for table in tables for row in table.rows]
        if name not in MOVING:
            assert by_psql.stdout.splitlines() == "\n".join(lines).splitlines()
        assert len(lines) > 0

    @pytest.mark.parametrize(("name", "role"), RUNS)
    def test_an_empty_database_is_no_error(self, database: ScratchDatabase, name: str, role: str) -> None:
        done = psql(database.url_for(role), name, WHOLE_DAY)

        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("name", NAMES)
    def test_roles_of_functions_cannot_run_it(self, market: Market, name: str) -> None:
        done = psql(market.database.url_for("function_trader"), name, WHOLE_DAY)

        assert "permission denied" in done.stderr

    def test_a_variable_is_data_and_never_sql(self, market: Market, user: User) -> None:
        with market.database.connect("compliance") as connection:
            (table,) = run_query(connection, "diagnose_margin", {"email": "x'; DROP TABLE orders; --"})

        assert table.rows == [(None,)]
        assert market.execute("SELECT count(*) > 0 FROM orders") == [(True,)]

    def test_a_variable_that_is_missing_is_named(self, market: Market) -> None:
        with pytest.raises(KeyError, match="email"):
            run_query(market.owner, "diagnose_margin", {})


def answer(market: Market, name: str, variables: Mapping[str, str] = WHOLE_DAY) -> list[dict[str, Any]]:
    with market.database.connect("compliance") as connection:
        (table,) = run_query(connection, name, variables)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


class TestMeasurements:
    def test_completion_counts_the_day_by_outcome(self, market: Market, user: User) -> None:
        assert answer(market, "measurement_task_completion") == [
            {
                "orders": 14,
                "filled": 7,
                "denied": 4,
                "rejected": 1,
                "ended": 1,
                "working": 1,
                "fill_rate_percent": Decimal("50.00"),
                # 7 of the 7 + 1 that were valid and came to an end
                "valid_executed_percent": Decimal("87.50"),
            }
        ]

    def test_errors_are_counted_by_code(self, market: Market, user: User) -> None:
        rows = [tuple(row.values()) for row in answer(market, "measurement_error_rate")]

        assert rows == [
            ("all", 5, 14, Decimal("35.71")),
            ("INSUFFICIENT_MARGIN", 3, 14, Decimal("21.43")),
            ("MARKET_CLOSED", 1, 14, Decimal("7.14")),
            ("VENUE_UNAVAILABLE", 1, 14, Decimal("7.14")),
        ]

    def test_latency_is_told_by_percentiles_of_each_type(self, market: Market, user: User) -> None:
        rows = {row["order_type"]: row for row in answer(market, "measurement_latency")}

        # 10, 20, ... 60 ms: the p-th of six lies at 1 + 5p
        assert rows["market"] == {
            "order_type": "market",
            "orders": 6,
            "average": Decimal("35.000"),
            "p50": Decimal("35.000"),
            "p95": Decimal("57.500"),
            "p99": Decimal("59.500"),
            "longest": Decimal("60.000"),
        }
        assert (rows["limit"]["orders"], rows["limit"]["p50"]) == (1, Decimal("1000.000"))
        assert (rows["all"]["orders"], rows["all"]["longest"]) == (7, Decimal("1000.000"))

    def test_a_real_order_takes_some_time_and_less_than_a_second(self, migrated: MigratedTemplate) -> None:
        scratch = migrated.clone()
        try:
            with Market.opened(scratch) as other:
                trader = other.user()
                for _ in range(5):
                    other.trade(trader)
                (row,) = [row for row in answer(other, "measurement_latency", ALWAYS) if row["order_type"] == "all"]
        finally:
            scratch.drop()
        assert row["orders"] == 5
        assert 0 <= row["average"] <= row["longest"] < 1000

    def test_nothing_at_all_is_zeros_and_unknowns(self, database: ScratchDatabase) -> None:
        with database.connect("compliance") as connection:
            (completion,), (errors,), (latency,) = (
                run_query(connection, name, ALWAYS)[0].rows for name in reports.MEASUREMENTS[:3]
            )

        assert completion == (0, 0, 0, 0, 0, 0, None, None)
        assert errors == ("all", 0, 0, None)
        assert latency == ("all", 0, None, None, None, None, None)

    def test_the_analysis_shows_the_plan_and_the_indexes(self, market: Market, user: User) -> None:
        with market.database.connect("compliance") as connection:
            plan, indexes = run_query(connection, "query_analysis", WHOLE_DAY)

        text = "\n".join(row[0] for row in plan.rows)
        assert "Limit" in text
        assert "actual time" in text
        assert "Buffers:" in text
        assert {"orders_pkey", "positions_open", "order_audit_log_of_order"} <= {row[1] for row in indexes.rows}


class TestExecutionReport:
    @pytest.fixture
    def state(self, tmp_path: Path, market: Market, user: User) -> State:
        """The state folder of a system that is up on the database."""
        return state_of(tmp_path, market.database)

    def rows_of(self, text: str) -> list[list[str]]:
        assert text.replace("\r\n", "").count("\r") == 0
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))

    def test_it_is_the_day_in_the_order_in_which_it_happened(
        self, state: State, user: User, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert report(state, "--from", "2026-03-02", "--to", "2026-03-02") == 0

        text = capsys.readouterr().out
        header, *rows = self.rows_of(text)
        assert header == ["trader_id", "order_id", "action", "timestamp", "reason"]
        assert len(rows) == 14
        assert [row[3] for row in rows] == sorted(row[3] for row in rows)
        assert rows[0][3] == "2026-03-02T12:00:00.000000Z"
        assert {row[0] for row in rows} == {str(user.user_id)}
        assert [row[2] for row in rows[-2:]] == ["SUBMITTED", "FILLED"]
        # lines end as RFC 4180 says, but for the one inside a reason, which is quoted
        assert text.endswith("\r\n")
        assert {row[4] for row in rows} == {"", REASON}
        assert '"He said ""fine"", twice\nand left"' in text

    def test_both_days_are_included(self, state: State, tmp_path: Path) -> None:
        out = tmp_path / "report.csv"

        assert report(state, "--from", "2026-03-02", "--to", "2026-03-03", "--out", str(out)) == 0

        assert len(self.rows_of(out.read_bytes().decode())) == 1 + 14 + 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["report.csv", "state"]

    def test_days_without_orders_leave_the_header(self, state: State, capsys: pytest.CaptureFixture[str]) -> None:
        assert report(state, "--from", "2020-01-01", "--to", "2020-01-31") == 0

        assert capsys.readouterr().out == "trader_id,order_id,action,timestamp,reason\r\n"

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ((), "FROM"),
            (("--from", "2026-03-02"), "TO="),
            (("--from", "yesterday", "--to", "2026-03-02"), "FROM"),
            (("--from", "2026-03-02", "--to", "2026-02-30"), "TO"),
            (("--from", "2026-03-02", "--to", "9999-12-31"), "TO"),
            (("--from", "2026-03-03", "--to", "2026-03-02"), "after"),
            (("--from", "2026-03-02", "--to", "2026-03-02", "--out", "/nowhere/report.csv"), "OUT"),
        ],
    )
    def test_what_is_wrong_is_named_in_one_line(
        self, state: State, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], named: str
    ) -> None:
        assert report(state, *arguments) == 2

        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert named in said.err

    def test_a_report_that_breaks_off_leaves_the_file_before_it(
        self, state: State, market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "report.csv"
        out.write_text("of yesterday")
        genuine = reports.streamed_query

        @contextmanager
        def breaking(*arguments: Any) -> Iterator[Iterator[tuple[Any, ...]]]:
            with genuine(*arguments) as rows:
                yield itertools.chain([next(rows)], lost())

        def lost() -> Iterator[tuple[Any, ...]]:
            raise psycopg.OperationalError("the server went away")
            yield

        monkeypatch.setattr(reports, "streamed_query", breaking)

        assert report(state, "--from", "2026-03-02", "--to", "2026-03-02", "--out", str(out)) == 1
        assert out.read_text() == "of yesterday"

    def test_it_reads_as_compliance(self, state: State, market: Market, capsys: pytest.CaptureFixture[str]) -> None:
        market.execute("REVOKE SELECT ON order_audit_log FROM compliance")
        try:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                report(state, "--from", "2026-03-02", "--to", "2026-03-02")
        finally:
            market.execute("GRANT SELECT ON order_audit_log TO compliance")


class TestMeasureCommand:
    def test_it_prints_each(
        self, tmp_path: Path, market: Market, user: User, capsys: pytest.CaptureFixture[str]
    ) -> None:
        state = state_of(tmp_path, market.database)

        assert commands.main(["--state", str(state.folder), "measure", "--email", user.email]) == 0

        said = capsys.readouterr().out
        assert all(f"\n{name}\n" in said for name in reports.MEASUREMENTS)
        assert "INSUFFICIENT_MARGIN" in said
        assert "Buffers:" in said

    def test_days_bound_it(
        self, tmp_path: Path, market: Market, user: User, capsys: pytest.CaptureFixture[str]
    ) -> None:
        state = state_of(tmp_path, market.database)

        assert commands.main(["--state", str(state.folder), "measure", "--from", "2030-01-01"]) == 0

        assert "INSUFFICIENT_MARGIN" not in capsys.readouterr().out

    def test_another_database_is_read_where_one_is_named(
        self, tmp_path: Path, market: Market, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # given no local system
        monkeypatch.setenv("DATABASE_URL", market.database.url_for("compliance"))

        assert commands.main(["--state", str(tmp_path / "none"), "measure"]) == 0

        assert "measurement_latency" in capsys.readouterr().out

    def test_a_database_that_does_not_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")

        assert commands.main(["--state", str(tmp_path / "none"), "measure"]) == 1

        assert "DATABASE_URL" in capsys.readouterr().err


def state_of(folder: Path, database: ScratchDatabase) -> State:
    """The state folder of a system that is up on `database`."""
    state = State(folder / "state")
    state.create()
    environment.write_env(state, port=8000, owner_url=database.url, redis_url="redis://127.0.0.1/0")
    (state.secrets / "compliance.password").write_text(database.passwords["compliance"])
    return state


def report(state: State, *arguments: str) -> int:
    return commands.main(["--state", str(state.folder), "execution-report", *arguments])
