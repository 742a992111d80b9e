"""Each door as each role: what a login may touch, and what it cannot even when it owns the tables."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from local.servers import LOGIN_ROLES
from tests.kit import MigratedTemplate, User
from tests.kit.linked import leg, linked_request
from tests.kit.orders import Market, raises_sqlstate

FUNCTION_ROLES = (
    "function_trader",
    "function_relay",
    "function_prices",
    "function_risk",
    "function_router",
    "function_operator",
    "function_triggers",
    "function_security",
    "function_incidents",
    "function_alerts",
    "function_end_of_day",
    "function_risk_officer",
)
OWNERS = ("trading_owner", "trading_procedures", "trading_readers", "trading_watchers")
APPEND_ONLY = ("order_audit_log", "platform_audit_log", "ledger_entries", "fills", "incident_events")
# What the migrations keep for themselves; no role of ours may see it.
BOOKKEEPING = {"schema_version", "applied_procedures"}
VIEWS = {"effective_limits", "order_terms"}

EXECUTE_GRANTS = {
    "function_trader": {
        "accept_order(jsonb)",
        "cancel_order(jsonb)",
        "cancel_orders(jsonb)",
        "change_position(jsonb)",
        "close_by(jsonb)",
        "close_planned(jsonb)",
        "close_position(jsonb)",
        "count_security_event(jsonb)",
        "execute_order_atomic(jsonb)",
        "find_orders(uuid,uuid,text[],text,text,text,timestamp with time zone,timestamp with time zone,text,uuid,"
        "integer)",
        "get_account(uuid,uuid)",
        "get_account_risk(uuid,uuid)",
        "get_order(uuid,uuid)",
        "get_order_audit(uuid,uuid)",
        "get_order_owner(uuid)",
        "get_profile(uuid)",
        "get_risk_settings(uuid,uuid)",
        "list_instruments()",
        "list_ledger_entries(uuid,uuid,bigint,integer)",
        "list_orders(uuid,uuid,text[],uuid,integer)",
        "list_positions(uuid,uuid)",
        "list_quotes(text[])",
        "page_positions(uuid,uuid,boolean,uuid,integer)",
        "place_linked_orders(jsonb)",
        "place_order(jsonb)",
        "plan_closes(jsonb)",
        "preview_cancel(uuid,jsonb)",
        "preview_cancel_all(uuid,jsonb)",
        "preview_close(uuid,jsonb)",
        "preview_close_all(uuid,jsonb)",
        "preview_close_by(uuid,jsonb)",
        "preview_facts(uuid,uuid,jsonb)",
        "preview_group(uuid,jsonb)",
        "preview_position_change(uuid,jsonb)",
        "preview_replacement(uuid,jsonb)",
        "probe_health()",
        "read_edge_guard()",
        "replace_order(jsonb)",
        "summarize_positions(uuid,uuid)",
        "take_rate_limits(jsonb)",
    },
    "function_relay": {
        "acknowledge_connection(jsonb)",
        "advance_streams(jsonb)",
        "authenticate_connection(jsonb)",
        "claim_price_notices(jsonb)",
        "claim_streams(jsonb)",
        "count_security_event(jsonb)",
        "drop_connections(jsonb)",
        "drop_unauthenticated_connection(jsonb)",
        "list_accounts_behind(jsonb)",
        "list_expired_connections(jsonb)",
        "purge_expired_keys(jsonb)",
        "read_edge_guard()",
        "read_events(jsonb)",
        "record_price_notices(jsonb)",
        "register_connection(jsonb)",
        "release_connection(jsonb)",
        "subscribe_connection(jsonb)",
        "take_rate_limits(jsonb)",
        "touch_connection(jsonb)",
        "unsubscribe_connection(jsonb)",
        "watch_prices(jsonb)",
    },
    "function_prices": {
        "acquire_feed_lease(jsonb)",
        "drop_connections(jsonb)",
        "feed_lease_awaited(jsonb)",
        "get_feed_provider(jsonb)",
        "list_feed_instruments()",
        "list_market_data_connections(jsonb)",
        "list_quotes(text[])",
        "record_quotes(jsonb)",
        "release_feed_lease(jsonb)",
        "watch_prices(jsonb)",
    },
    "function_risk": {
        "find_unprotected_balances(jsonb)",
        "monitor_margin(jsonb)",
        "monitor_symbols(jsonb)",
        "protect_balance(jsonb)",
        "record_margin_call(jsonb)",
        "stop_out_step(jsonb)",
        "trip_account_breaker(jsonb)",
        "watch_breakers(jsonb)",
    },
    "function_router": {
        "book_venue_fill(jsonb)",
        "claim_venue_orders(jsonb)",
        "find_venue_record(jsonb)",
        "get_venue_market(text)",
        "keep_venue_record(jsonb)",
        "list_venue_records(jsonb)",
        "record_venue_attempt(jsonb)",
        "reject_venue_order(jsonb)",
        "release_venue_order(jsonb)",
    },
    "function_operator": {
        "adjust(jsonb)",
        "change_account(jsonb)",
        "count_security_event(jsonb)",
        "deposit(jsonb)",
        "find_accounts(text)",
        "get_account_owner(uuid)",
        "get_account_risk(uuid,uuid)",
        "list_ledger_entries(uuid,uuid,bigint,integer)",
        "read_edge_guard()",
        "take_rate_limits(jsonb)",
        "withdraw(jsonb)",
    },
    "function_security": {
        "erase_security_data(jsonb)",
        "evaluate_security(jsonb)",
        "list_interventions(jsonb)",
        "note_security_response(jsonb)",
        "read_edge_guard()",
        "record_security_events(jsonb)",
        "start_intervention(jsonb)",
        "undo_intervention(jsonb)",
    },
    "function_alerts": {
        "claim_notifications(jsonb)",
        "claim_responses(jsonb)",
        "collect_duty_figures(jsonb)",
        "collect_history_figures(jsonb)",
        "collect_order_figures(jsonb)",
        "collect_price_figures(jsonb)",
        "collect_queue_figures(jsonb)",
        "collect_security_figures(jsonb)",
        "collect_server_figures(jsonb)",
        "keep_performance_reports(jsonb)",
        "list_alert_rules()",
        "list_interventions(jsonb)",
        "list_suspects(jsonb)",
        "note_intervention(jsonb)",
        "note_security_response(jsonb)",
        "read_edge_guard()",
        "record_outage(jsonb)",
        "record_readings(jsonb)",
        "report_notification(jsonb)",
        "report_response(jsonb)",
        "start_intervention(jsonb)",
    },
    "function_incidents": {
        "acknowledge_alert(jsonb)",
        "change_never_blocked(jsonb)",
        "change_security_rule(jsonb)",
        "count_security_event(jsonb)",
        "erase_security_data(jsonb)",
        "get_incident(jsonb)",
        "list_alerts(jsonb)",
        "list_interventions(jsonb)",
        "list_never_blocked()",
        "list_performance_reports(jsonb)",
        "list_security_events(jsonb)",
        "list_security_rules()",
        "read_edge_guard()",
        "resolve_alert(jsonb)",
        "start_intervention(jsonb)",
        "take_rate_limits(jsonb)",
        "undo_intervention(jsonb)",
    },
    "function_end_of_day": {
        "begin_account_day(jsonb)",
        "finance_account(jsonb)",
        "find_due_financing(jsonb)",
        "find_ended_days(jsonb)",
        "finish_rolls(jsonb)",
        "open_rolls(jsonb)",
        "purge_histories(jsonb)",
        "take_equity_snapshots(jsonb)",
    },
    "compliance": {
        "diagnose_margin(text)",
        "get_account_risk(uuid,uuid)",
        "replay_order(uuid)",
        "verify_audit()",
        "verify_books()",
    },
    "function_risk_officer": {
        "change_margin_profile(jsonb)",
        "change_risk_defaults(jsonb)",
        "change_risk_settings(jsonb)",
        "count_security_event(jsonb)",
        "get_account_owner(uuid)",
        "get_risk_settings(uuid,uuid)",
        "get_wind_down(uuid)",
        "list_margin_calls(jsonb)",
        "list_margin_profiles(integer)",
        "list_risk_changes(uuid,uuid,integer)",
        "list_risk_defaults(integer)",
        "list_trading_states()",
        "order_horizon()",
        "orders_are_over(text)",
        "preview_wind_down(jsonb)",
        "read_edge_guard()",
        "set_trading_state(jsonb)",
        "start_wind_down(jsonb)",
        "take_rate_limits(jsonb)",
    },
    "function_triggers": {
        "claim_triggers(jsonb)",
        "execute_trigger(jsonb)",
        "claim_wind_downs(jsonb)",
        "wind_down_step(jsonb)",
    },
    "backup": {"verify_audit()", "verify_books()"},
}


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; what a test changes it rolls back."""
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
    finally:
        scratch.drop()


@pytest.fixture(scope="module")
def trader(market: Market) -> User:
    """A trader with an order of their own."""
    user = market.user()
    market.trade(user)
    return user


@pytest.fixture(scope="module")
def stranger(market: Market) -> User:
    """Another one."""
    user = market.user()
    market.trade(user, client_order_id="theirs")
    return user


def tables(market: Market) -> list[str]:
    """Every table and view of ours."""
    found = market.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') "
        "ORDER BY relname"
    )
    return [name for (name,) in found]


def attempts(market: Market, table: str) -> dict[str, sql.Composed]:
    """A statement for each way to touch `table` that needs no other privilege on it; a view of ours is only read."""
    ((column,),) = market.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", (f"public.{table}",)
    )
    names = {"table": sql.Identifier(table), "column": sql.Identifier(column)}
    read = {"SELECT": sql.SQL("SELECT FROM {table}").format(**names)}
    if table in VIEWS:
        return read
    return read | {
        "INSERT": sql.SQL("INSERT INTO {table} DEFAULT VALUES").format(**names),
        "UPDATE": sql.SQL("UPDATE {table} SET {column} = DEFAULT").format(**names),
        "DELETE": sql.SQL("DELETE FROM {table}").format(**names),
        "TRUNCATE": sql.SQL("TRUNCATE {table}").format(**names),
    }


def open_doors(market: Market, role: str) -> set[tuple[str, str]]:
    """(table, verb) of what `role` is not refused for want of a privilege."""
    doors: set[tuple[str, str]] = set()
    with market.database.connect(role) as connection:
        for table in tables(market):
            for verb, statement in attempts(market, table).items():
                try:
                    with connection.transaction(force_rollback=True):
                        connection.execute(statement)
                except psycopg.errors.InsufficientPrivilege:
                    continue
                except psycopg.Error:
                    pass  # another fault comes after the door
                doors.add((table, verb))
    return doors


class TestDoors:
    @pytest.mark.parametrize("role", FUNCTION_ROLES)
    def test_a_function_can_touch_no_table(self, market: Market, role: str) -> None:
        assert open_doors(market, role) == set()

    def test_compliance_reads_all_but_personal_data_and_changes_nothing(self, market: Market) -> None:
        readable = {table for table, verb in open_doors(market, "compliance") if verb == "SELECT"}

        assert {verb for _, verb in open_doors(market, "compliance")} == {"SELECT"}
        assert not {"audit_pii", "security_pii", "security_counters"} & readable
        assert not readable & BOOKKEEPING
        assert {"orders", "order_audit_log", "ledger_entries", "accounts", "profiles", "events"} <= readable

    def test_backup_reads_every_table_and_changes_nothing(self, market: Market) -> None:
        doors = open_doors(market, "backup")

        assert {verb for _, verb in doors} == {"SELECT"}
        assert {table for table, _ in doors} == set(tables(market)) - BOOKKEEPING - VIEWS

    @pytest.mark.parametrize("role", ["compliance", "backup"])
    def test_who_reads_sees_everybody(self, market: Market, trader: User, stranger: User, role: str) -> None:
        with market.database.connect(role) as connection:
            seen = {row[0] for row in connection.execute("SELECT user_id FROM orders")}

        assert {trader.user_id, stranger.user_id} <= seen


class TestFunctions:
    def test_each_login_may_execute_exactly_these(self, market: Market) -> None:
        granted = market.execute(
            "SELECT r.rolname, p.oid::regprocedure::text FROM pg_proc AS p CROSS JOIN pg_roles AS r "
            "WHERE p.pronamespace = 'public'::regnamespace AND r.rolname = ANY (%s) "
            "AND has_function_privilege(r.oid, p.oid, 'EXECUTE')",
            (list(LOGIN_ROLES),),
        )

        found = {role: {name for who, name in granted if who == role} for role in LOGIN_ROLES}
        assert found == EXECUTE_GRANTS

    def test_the_public_may_execute_none(self, market: Market) -> None:
        open_to_all = market.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc AS p "
            "CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a "
            "WHERE p.pronamespace = 'public'::regnamespace AND a.grantee = 0"
        )

        assert open_to_all == []

    def test_a_procedure_that_runs_as_its_owner_looks_names_up_in_one_place(self, market: Market) -> None:
        elsewhere = market.execute(
            "SELECT p.oid::regprocedure::text, p.proconfig FROM pg_proc AS p "
            "WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef "
            "AND NOT coalesce(p.proconfig @> ARRAY['search_path=public, pg_temp'], false)"
        )

        assert elsewhere == []

    def test_only_owners_that_nobody_logs_in_as_run_procedures(self, market: Market) -> None:
        owners = market.execute(
            "SELECT DISTINCT r.rolname, r.rolcanlogin FROM pg_proc AS p INNER JOIN pg_roles AS r ON r.oid = p.proowner "
            "WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef"
        )

        assert set(owners) == {(owner, False) for owner in OWNERS if owner != "trading_owner"}

    @pytest.mark.parametrize("role", FUNCTION_ROLES)
    def test_a_function_cannot_call_what_procedures_are_made_of(self, market: Market, role: str) -> None:
        with (
            market.database.connect(role) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("SELECT own_limits(NULL)")


class TestRoles:
    def test_none_of_ours_is_above_the_rules(self, market: Market) -> None:
        ours = [*LOGIN_ROLES, *OWNERS, "trading_admin"]

        flags = market.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) "
            "AND NOT (rolsuper OR rolbypassrls OR rolreplication OR (rolcreaterole AND rolname <> 'trading_admin'))",
            (ours,),
        )

        assert {name for (name,) in flags} == set(ours)

    def test_functions_are_members_of_nothing(self, market: Market) -> None:
        memberships = market.execute(
            "SELECT m.roleid::regrole::text, m.member::regrole::text FROM pg_auth_members AS m "
            "WHERE m.member::regrole::text = ANY (%s)",
            ([*LOGIN_ROLES, *OWNERS],),
        )

        assert memberships == []

    @pytest.mark.parametrize("role", FUNCTION_ROLES)
    def test_statements_of_functions_are_bounded(self, market: Market, role: str) -> None:
        with market.database.connect(role) as connection:
            settings = {
                name: connection.execute("SELECT current_setting(%s)", (name,)).fetchall()[0][0]
                for name in ("statement_timeout", "lock_timeout", "client_connection_check_interval")
            }

        assert "0" not in settings.values()

    def test_commits_wait_for_the_disk(self, market: Market) -> None:
        for role in FUNCTION_ROLES:
            with market.database.connect(role) as connection:
                assert connection.execute("SHOW synchronous_commit").fetchall() == [("on",)]


class TestRowSecurity:
    def test_it_is_forced_on_every_table(self, market: Market) -> None:
        forced = market.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND relrowsecurity AND relforcerowsecurity AND relowner = 'trading_owner'::regrole"
        )

        assert {name for (name,) in forced} == set(tables(market)) - BOOKKEEPING - VIEWS

    def test_readers_see_the_rows_of_the_user_that_is_set(self, market: Market, trader: User, stranger: User) -> None:
        by_user = [
            table
            for (table,) in market.execute(
                "SELECT tablename FROM pg_policies WHERE policyname = 'readers_own' AND qual LIKE '%%app.user_id%%' "
                "ORDER BY tablename"
            )
        ]
        assert {"orders", "fills", "positions", "ledger_entries", "events", "order_audit_log"} <= set(by_user)

        with market.owner.transaction(force_rollback=True):
            market.execute("SET LOCAL ROLE trading_readers")
            for table in by_user:
                owner = "id" if table == "profiles" else "user_id"
                market.execute("SELECT set_config('app.user_id', '', true)")
                assert market.execute(f"SELECT {owner} FROM {table}") == [], table
                market.execute("SELECT set_config('app.user_id', %s, true)", (str(trader.user_id),))
                assert {row[0] for row in market.execute(f"SELECT {owner} FROM {table}")} <= {trader.user_id}, table

    def test_the_terms_of_orders_show_readers_the_user_that_is_set(self, market: Market, trader: User) -> None:
        with market.owner.transaction(force_rollback=True):
            market.execute("SET LOCAL ROLE trading_readers")
            market.execute("SELECT set_config('app.user_id', '', true)")
            assert market.execute("SELECT DISTINCT user_id FROM order_terms") == []
            market.execute("SELECT set_config('app.user_id', %s, true)", (str(trader.user_id),))
            assert market.execute("SELECT DISTINCT user_id FROM order_terms") == [(trader.user_id,)]

    def test_reading_functions_return_only_own_rows(self, market: Market, trader: User, stranger: User) -> None:
        (mine,), (theirs,) = market.rows("orders", trader), market.rows("orders", stranger)

        def ask(statement: str, *parameters: object) -> object:
            return market.trader.execute(statement.encode(), parameters).fetchall()[0][0]

        assert ask("SELECT get_order(%s, %s) ->> 'id'", trader.user_id, mine["id"]) == str(mine["id"])
        assert ask("SELECT get_order(%s, %s)", trader.user_id, theirs["id"]) is None
        assert ask("SELECT get_order_audit(%s, %s)", trader.user_id, theirs["id"]) is None
        assert ask("SELECT jsonb_array_length(get_order_audit(%s, %s))", trader.user_id, mine["id"]) == 4
        for account_id in (None, trader.account_id):
            listed = ask("SELECT list_orders(%s, %s, NULL, NULL, 100)", trader.user_id, account_id)
            positions = ask("SELECT list_positions(%s, %s)", trader.user_id, account_id)
            assert [order["id"] for order in listed["orders"]] == [str(mine["id"])]  # pyright: ignore[reportIndexIssue]
            assert [position["order_id"] for position in positions] == [str(mine["id"])]  # pyright: ignore[reportGeneralTypeIssues]
        assert ask("SELECT list_orders(%s, %s, NULL, NULL, 100) -> 'orders'", trader.user_id, stranger.account_id) == []
        assert ask("SELECT list_positions(%s, %s)", trader.user_id, stranger.account_id) == []
        find = "SELECT find_orders(%s, %s, NULL, NULL, NULL, NULL, NULL, NULL, %s, NULL, 100) -> 'orders'"
        assert [order["id"] for order in ask(find, trader.user_id, None, None)] == [str(mine["id"])]  # pyright: ignore[reportGeneralTypeIssues]
        assert ask(find, trader.user_id, stranger.account_id, None) == []
        assert ask(find, trader.user_id, None, "theirs") == []
        page = "SELECT page_positions(%s, %s, true, NULL, 100) -> 'positions'"
        assert [one["order_id"] for one in ask(page, trader.user_id, None)] == [str(mine["id"])]  # pyright: ignore[reportGeneralTypeIssues]
        assert ask(page, trader.user_id, stranger.account_id) == []
        order = Jsonb({"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": 1})
        for account_id in (None, trader.account_id):
            facts = ask("SELECT preview_facts(%s, %s, %s)", trader.user_id, account_id, order)
            assert facts["account"]["id"] == str(trader.account_id)  # pyright: ignore[reportIndexIssue]
        with raises_sqlstate("TR001"):
            ask("SELECT preview_facts(%s, %s, %s)", trader.user_id, stranger.account_id, order)
        (held,) = market.rows("positions", stranger)
        for function, asked in (
            ("preview_cancel", {"order_id": str(theirs["id"])}),
            ("preview_cancel_all", {"account_id": str(stranger.account_id)}),
            ("preview_group", linked_request(stranger, "oco", leg(), leg(), account_id=str(stranger.account_id))),
            ("preview_position_change", {"position_id": str(held["id"]), "levels": {"stop_loss": None}}),
        ):
            with raises_sqlstate("TR001"):
                ask(f"SELECT {function}(%s, %s)", trader.user_id, Jsonb(asked))
        assert ask("SELECT get_profile(%s) ->> 'id'", trader.user_id) == str(trader.user_id)
        assert ask("SELECT get_profile(%s)", uuid.uuid4()) is None
        with raises_sqlstate("TR001"):
            ask("SELECT get_account(%s, %s)", trader.user_id, stranger.account_id)
        with raises_sqlstate("TR001"):
            ask("SELECT get_account(%s, NULL)", uuid.uuid4())

    def test_who_counts_reads_no_money_and_nothing_personal(self, market: Market, trader: User) -> None:
        for statement in ("SELECT balance FROM accounts", "SELECT email FROM profiles", "SELECT FROM ledger_entries"):
            with market.owner.transaction(force_rollback=True):
                market.execute("SET LOCAL ROLE trading_watchers")
                assert market.execute("SELECT count(last_sequence) > 0 FROM accounts") == [(True,)]
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    market.execute(statement)

    def test_the_user_is_forgotten_with_the_call(self, market: Market, trader: User) -> None:
        market.trader.execute("SELECT get_account(%s, NULL)", (trader.user_id,))

        left = market.trader.execute("SELECT nullif(current_setting('app.user_id', true), '')").fetchall()

        assert left == [(None,)]


class TestAppendOnly:
    """What was written stays, whoever asks."""

    @pytest.mark.parametrize("verb", ["UPDATE", "DELETE", "TRUNCATE"])
    @pytest.mark.parametrize("table", APPEND_ONLY)
    @pytest.mark.parametrize("role", ["trading_admin", "trading_owner"])
    def test_not_even_the_owner_changes_a_row(
        self, market: Market, trader: User, role: str, table: str, verb: str
    ) -> None:
        market.execute('SELECT set_trade_always(\'{"version": 1, "trade_always": true, "actor": "tests"}\')')
        market.execute('SELECT set_trade_always(\'{"version": 1, "trade_always": false, "actor": "tests"}\')')
        market.execute(
            'SELECT record_readings(\'{"version": 1, "samples": [], "readings": [{"rule": "MARGIN_WATCH_SILENT", '
            '"subject": "", "verdict": "breached", "value": 400, "samples": 1}]}\')'
        )
        column = "version" if "audit" in table else "place" if "incident" in table else "order_id"
        statement = {
            "UPDATE": f"UPDATE {table} SET {column} = {column}",
            "DELETE": f"DELETE FROM {table}",
            "TRUNCATE": f"TRUNCATE {table} CASCADE",
        }[verb]

        with market.owner.transaction(force_rollback=True):
            market.execute(f"SET LOCAL ROLE {role}")
            assert market.execute(f"SELECT count(*) FROM {table}")[0][0] > 0
            with raises_sqlstate("TR007"):
                market.execute(statement)

    @pytest.mark.parametrize("table", APPEND_ONLY)
    @pytest.mark.parametrize("role", ["trading_procedures", "trading_readers"])
    def test_procedures_have_no_right_to(self, market: Market, role: str, table: str) -> None:
        statements = attempts(market, table)
        for verb in ("UPDATE", "DELETE", "TRUNCATE"):
            with market.owner.transaction(force_rollback=True):
                market.execute(f"SET LOCAL ROLE {role}")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    market.owner.execute(statements[verb])

    def test_the_guard_cannot_be_sent_to_sleep_by_a_session(self, market: Market) -> None:
        # given that a replica's session skips ordinary triggers
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            market.execute("SET session_replication_role = 'replica'")

        # then even where that is allowed, these fire always
        guards = market.execute(
            "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE tgname LIKE 'append_only%%'"
        )
        assert set(guards) == {
            (table, name, "A") for table in APPEND_ONLY for name in ("append_only", "append_only_whole")
        }

    def test_an_order_cannot_be_removed_with_its_history(self, market: Market, trader: User) -> None:
        with raises_sqlstate("23503"), market.owner.transaction(force_rollback=True):
            market.execute("DELETE FROM orders WHERE user_id = %s", (trader.user_id,))

    def test_a_state_only_steps_where_it_may(self, market: Market, trader: User) -> None:
        with raises_sqlstate("TR008"), market.owner.transaction(force_rollback=True):
            market.execute("UPDATE orders SET status = 'canceled' WHERE user_id = %s", (trader.user_id,))
