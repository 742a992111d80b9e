"""Tokens, quotes and load accounts, as the commands give them to people and scripts."""

from decimal import Decimal
from pathlib import Path

import jwt
import psycopg
import pytest

from local import commands, environment, tokens
from local.demo_accounts import DEMO_USERS, load_demo_accounts, make_load_accounts
from local.environment import API_CLIENT_ID, JWT_AUDIENCE, JWT_ISSUER, State
from tests.kit import ScratchDatabase


@pytest.fixture
def state(tmp_path: Path, database: ScratchDatabase) -> State:
    """The state folder of a system that is up on the test's database."""
    folder = State(tmp_path / "state")
    folder.create()
    environment.write_env(folder, port=8000, owner_url=database.url, redis_url="redis://127.0.0.1/0")
    folder.write_secret("compliance.password", database.passwords["compliance"])
    with database.connect() as connection:
        load_demo_accounts(connection)
    return folder


def run(state: State, *arguments: str) -> int:
    return commands.main(["--state", str(state.folder), *arguments])


def rows(database: ScratchDatabase, query: str) -> list[tuple]:
    with psycopg.connect(database.url) as connection:
        return connection.execute(query.encode()).fetchall()


def claims(state: State, token: str) -> dict:
    return jwt.decode(token, state.secret("JwtSecret"), algorithms=["HS256"], audience=JWT_AUDIENCE, issuer=JWT_ISSUER)


class TestDemoAccounts:
    def test_they_are_as_described_and_funded_through_the_ledger(self, state: State, database: ScratchDatabase) -> None:
        # when the demo accounts are there
        found = rows(
            database,
            "SELECT p.email, p.kyc_status, p.account_status, a.kind, a.currency, a.balance, "
            "(SELECT coalesce(sum(amount), 0) FROM ledger_entries WHERE account_id = a.id) "
            "FROM profiles p JOIN accounts a ON a.user_id = p.id",
        )
        # then each holds what its ledger holds
        assert {row[0] for row in found} == {user.email for user in DEMO_USERS}
        for email, kyc, status, kind, currency, balance, ledger in found:
            user = next(user for user in DEMO_USERS if user.email == email)
            assert (kyc, status, kind, currency) == (user.kyc_status, user.account_status, user.kind, user.currency)
            assert balance == ledger == user.balance

    def test_they_are_funded_with_the_rights_of_operators_alone(self, database: ScratchDatabase) -> None:
        # given operators who may not deposit
        with database.connect() as connection:
            connection.execute("REVOKE EXECUTE ON FUNCTION deposit(jsonb) FROM function_operator")
            # when / then the owner of everything cannot fund either
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                load_demo_accounts(connection)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                make_load_accounts(connection, 1)
            assert connection.execute("SELECT current_user = session_user").fetchone() == (True,)

    def test_loading_them_again_changes_nothing(self, state: State, database: ScratchDatabase) -> None:
        # given the state after the first load
        query = "SELECT id, balance, last_sequence, updated_at FROM accounts ORDER BY id"
        before = rows(database, query)
        # when they are loaded again
        with database.connect() as connection:
            load_demo_accounts(connection)
        # then it is the same
        assert rows(database, query) == before


class TestKnownAddresses:
    def test_of_many_the_first_are_named_and_the_rest_counted(self, database: ScratchDatabase) -> None:
        with database.connect() as connection:
            connection.execute(
                "INSERT INTO profiles (email) SELECT format('user-%s@example.com', to_char(i, 'FM000')) "
                "FROM generate_series(1, 53) AS i"
            )
            make_load_accounts(connection, 2)

            known = tokens.known_addresses(connection)

        assert known[:2] == ["user-001@example.com", "user-002@example.com"]
        assert known[-3:] == ["user-050@example.com", "3 more", "load-0001@example.com to load-0002@example.com"]


class TestToken:
    def test_it_is_printed_alone_and_names_the_api_client(
        self, state: State, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # when a token is asked for without more
        assert run(state, "token") == 0
        # then it stands alone on the output, for gold@, exempt from CSRF by its client
        (line,) = capsys.readouterr().out.splitlines()
        given = claims(state, line)
        assert (given["email"], given["tier"], given["role"]) == ("gold@example.com", "gold", "trader")
        assert given["client_id"] == API_CLIENT_ID
        assert "sid" not in given

    def test_a_session_has_its_csrf_token(self, state: State, capsys: pytest.CaptureFixture[str]) -> None:
        from datetime import UTC, datetime
        from uuid import UUID

        from trading.edge.csrf import check_csrf_token

        # when a session's token is asked for
        assert run(state, "token", "--email", "cash@example.com", "--session") == 0
        # then a CSRF token of that very session is below it
        token, csrf = capsys.readouterr().out.splitlines()
        given = claims(state, token)
        assert "client_id" not in given
        check_csrf_token(state.secret("CsrfSecret"), csrf, UUID(given["sub"]), given["sid"], datetime.now(UTC))

    def test_an_unknown_address_gets_the_known_ones(self, state: State, capsys: pytest.CaptureFixture[str]) -> None:
        # when nobody has the address
        assert run(state, "token", "--email", "nobody@example.com") == 2
        # then the output stays empty and the error lists who there is
        captured = capsys.readouterr()
        assert captured.out == ""
        assert all(user.email in captured.err for user in DEMO_USERS)

    def test_staff_have_their_roles(self, state: State, database: ScratchDatabase) -> None:
        with database.connect() as connection:
            token = tokens.issue(state, connection, "risk@example.com").token
        assert claims(state, token)["role"] == "risk_officer"


class TestLoadAccounts:
    def test_they_are_funded_once_and_bound_by_no_limit(self, state: State, database: ScratchDatabase) -> None:
        # when some are made, then more
        assert run(state, "load-accounts", "--count", "2", "--balance", "500.25") == 0
        assert run(state, "load-accounts", "--count", "3") == 0
        # then the first keep what they had, and no limit binds any
        assert rows(
            database,
            "SELECT p.email, a.balance, num_nonnulls("
            "r.max_position_size, r.max_positions, r.daily_trade_limit, r.max_daily_loss) "
            "FROM profiles p JOIN accounts a ON a.user_id = p.id JOIN effective_limits r ON r.account_id = a.id "
            "WHERE p.email LIKE 'load-%' ORDER BY 1",
        ) == [
            ("load-0001@example.com", Decimal("500.25"), 0),
            ("load-0002@example.com", Decimal("500.25"), 0),
            ("load-0003@example.com", Decimal(100_000), 0),
        ]

    def test_their_tokens_are_unmetered(self, state: State, database: ScratchDatabase) -> None:
        with database.connect() as connection:
            make_load_accounts(connection, 1)
            token = tokens.issue(state, connection, "load-0001@example.com").token
        assert claims(state, token)["tier"] == "unmetered"

    @pytest.mark.parametrize("count", ["0", "-1", "1.5", "many", "100001", "٣"])
    def test_a_wrong_count_is_one_line(self, state: State, count: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(state, "load-accounts", f"--count={count}") == 2
        assert capsys.readouterr().err.count("\n") == 1


class TestQuote:
    def test_a_held_price_stands_against_the_simulator_until_it_is_given_back(
        self, state: State, database: ScratchDatabase
    ) -> None:
        simulated = (
            'SELECT record_quotes(\'{"version": 1, "source": "simulated", '
            '"quotes": [{"symbol": "EURUSD", "bid": "1.3", "ask": "1.4"}]}\')'
        )
        now = "SELECT bid, ask, source FROM quotes WHERE symbol = 'EURUSD'"
        # given a price set by hand, over one of the simulator
        rows(database, simulated)
        assert run(state, "quote", "--symbol", "eurusd", "--bid", "1.1", "--ask", "1.1002") == 0
        # when the simulator goes on
        with database.connect() as connection:
            connection.execute(simulated.encode())
        # then the price stands
        assert rows(database, now) == [(Decimal("1.1"), Decimal("1.1002"), "manual")]
        # when it is given back
        assert run(state, "quote", "--symbol", "EURUSD") == 0
        with database.connect() as connection:
            connection.execute(simulated.encode())
        # then the simulator's counts
        assert rows(database, now) == [(Decimal("1.3"), Decimal("1.4"), "simulated")]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--symbol", "NOPE", "--bid", "1", "--ask", "2"], "SYMBOL"),
            (["--symbol", "EURUSD", "--bid", "1"], "ASK"),
            (["--symbol", "EURUSD", "--ask", "1"], "BID"),
            (["--symbol", "EURUSD", "--bid", "NaN", "--ask", "1"], "BID"),
            (["--symbol", "EURUSD", "--bid", "0", "--ask", "1"], "BID"),
            (["--symbol", "EURUSD", "--bid", "1", "--ask", "Infinity"], "ASK"),
            (["--symbol", "EURUSD", "--bid", "2", "--ask", "1"], "ASK"),
        ],
    )
    def test_a_wrong_value_is_named_in_one_line(
        self, state: State, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(state, "quote", *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line


def test_without_a_running_system_commands_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--state", str(tmp_path), "token"]) == 1
    assert "make start" in capsys.readouterr().err


def test_a_system_that_was_killed_is_told_in_one_line(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    # given the file of a system whose database is gone
    environment.write_env(
        state, port=8000, owner_url="postgresql://nobody@127.0.0.1:9/none", redis_url="redis://127.0.0.1/0"
    )
    # when a token is asked for
    assert run(state, "token") == 1
    # then one line says so, in our words
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line == f"No local system is up on {state.folder}: its database does not answer. Run `make start` first."


def test_fresh_books_and_their_audit_hold(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(state, "verify", "books") == 0
    assert run(state, "verify", "audit") == 0
    assert capsys.readouterr().out.count("hold") == 2


@pytest.mark.parametrize("what", ["books", "audit"])
def test_the_books_of_another_database_are_checked_where_no_local_system_is(
    what: str,
    database: ScratchDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)

    assert run(State(tmp_path / "nothing"), "verify", what) == 0
    assert "hold" in capsys.readouterr().out


def test_a_balance_that_no_ledger_knows_is_found(
    state: State, database: ScratchDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    # given an account whose balance was changed past the ledger
    with database.connect() as connection:
        connection.execute("UPDATE accounts SET balance = balance + 1 WHERE currency = 'GBP'")
    # when the books are checked, then the check fails
    assert run(state, "verify", "books") == 1
    assert "broken" in capsys.readouterr().out
