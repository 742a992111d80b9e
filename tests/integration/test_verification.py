"""The checkers turned on themselves: each thing that can be wrong with the books is found, and named."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from psycopg.types.json import Jsonb

from database import verify
from tests.kit import MigratedTemplate, ScratchDatabase, User
from tests.kit.linked import bracket_request, leg, linked_request, placed, stop_leg
from tests.kit.mutations import tampered
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market
from tests.kit.positions import change
from tests.kit.ticks import Ticker


@dataclass(frozen=True)
class World:
    """Accounts with something of everything: fills, a reduction, denials, a holding of a cash account.

    The rester has an order that rests (event 2), one that was denied, one that was canceled, and a position that was
    opened and closed. On the kept account operators moved money of every kind and changed every term. The replacer
    has an order in the place of another one (event 3), and one whose replacement was denied. The trailer has orders and
    a position whose stops trail, and one that has left; the linker groups of orders, of which one is filled in part,
    and an iceberg and one for the close.
    """

    market: Market
    hedger: User
    netter: User
    holder: User
    rester: User
    kept: User
    replacer: User
    trailer: User
    linker: User


def populate(market: Market) -> World:
    world = World(
        market,
        market.user(),
        market.user(position_mode="netting"),
        market.user(kind="cash", balance=20_000),
        *(market.user() for _ in range(5)),
    )
    for _ in range(2):
        market.trade(world.hedger)
    market.trade(world.hedger, quantity="900")  # denied for margin
    market.trade(world.netter)
    market.quote("EURUSD", "1.1050", "1.1052")
    market.trade(world.netter, side="sell", quantity="0.4")
    market.trade(world.holder, symbol="AAPL", quantity="100")
    market.place(world.rester, order_type="stop_limit", stop_price="1.2", limit_price="1.21", stop_loss="1.1")
    market.place(world.rester, quantity="900")  # denied for margin
    market.cancel(world.rester, market.place(world.rester)["order_id"])
    market.close_out(world.rester, market.trade(world.rester)["position_id"])
    market.replace(world.replacer, market.place(world.replacer)["order_id"], quantity="2")
    market.replace(world.replacer, market.place(world.replacer)["order_id"], quantity="900")  # denied for margin
    with Ticker.opened(market) as ticker:
        trail(world, ticker)
        link(world, ticker)
    for procedure, fields in ACTS:
        act(market.owner, procedure, operator_request(world.kept, **fields))
    set_trade_always(market, True)
    set_trade_always(market, False)
    return world


def trail(world: World, ticker: Ticker) -> None:
    """A stop with a limit that is triggered at 149.8, one that trails on, and a position that trails too."""
    yen: dict[str, object] = {"symbol": "USDJPY", "side": "sell", "limit_price": None}
    world.market.place(world.trailer, order_type="trailing_stop_limit", trail_amount="0.2", limit_offset="0", **yen)
    world.market.place(world.trailer, order_type="trailing_stop", trail_percent="1", **yen)
    change(world.market, world.trailer, world.market.trade(world.trailer)["position_id"], trailing_distance="0.002")
    assert ticker.tick("USDJPY", "149.700", "149.710") == ["triggered"]


def link(world: World, ticker: Ticker) -> None:
    """Two of GBPUSD that cancel each other, one of three lots filled; an entry that rests and one that is filled."""
    market, pound = world.market, {"symbol": "GBPUSD", "quantity": "3"}
    market.execute("UPDATE instruments SET daily_volume = 86400 WHERE symbol = 'GBPUSD'")
    both = (leg(limit_price="1.2400", **pound), stop_leg(stop_price="1.2600", **pound))
    placed(market, linked_request(world.linker, "oco", *both))
    placed(market, bracket_request(world.linker, leg()))
    placed(market, bracket_request(world.linker, leg(order_type="market", limit_price=None)))
    market.place(world.linker, display_quantity="0.3", display_variance="0.5", post_only=True)
    market.place(world.linker, time_in_force="cls")
    assert ticker.tick("GBPUSD", "1.2398", "1.2400") == ["partially_filled"]


ACTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("withdraw", {"amount": "10"}),
    ("withdraw", {"amount": "1000000"}),  # refused
    ("adjust", {"amount": "-0.01"}),
    ("change_account", {"leverage": 50, "account_tier": "silver", "kyc_status": "rejected"}),
    ("change_account", {"leverage": 30, "position_mode": "netting", "margin_profile": "retail"}),
    ("change_account", {"account_status": "suspended"}),
    ("change_risk_settings", {"limits": {"max_positions": 3}}),
)


def set_trade_always(market: Market, wanted: bool) -> None:
    request = {"version": 1, "trade_always": wanted, "actor": "tests", "reason": "to have something in the chain"}
    market.execute("SELECT set_trade_always(%s)", (Jsonb(request),))


@pytest.fixture(scope="module")
def world(migrated: MigratedTemplate) -> Iterator[World]:
    """One world for the module; every mutation is rolled back."""
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield populate(market)
    finally:
        scratch.drop()


def users(world: World) -> dict[str, object]:
    return {
        "hedger": world.hedger.user_id,
        "netter": world.netter.user_id,
        "holder": world.holder.user_id,
        "rester": world.rester.user_id,
        "kept": world.kept.user_id,
        "replacer": world.replacer.user_id,
        "trailer": world.trailer.user_id,
        "linker": world.linker.user_id,
    }


def audit_faults(market: Market) -> list[tuple[str, int, str]]:
    return market.execute("SELECT chain, version, problem FROM verify_audit()")


class TestAudit:
    def test_chains_that_hold(self, world: World) -> None:
        assert audit_faults(world.market) == []

    @pytest.mark.parametrize(
        "change",
        [
            'details = details || \'{"quantity": "2"}\'',
            "reason = 'another'",
            "action = 'RECOVERED'",
            "status = 'canceled'",
            "created_at = created_at + interval '1 microsecond'",
            "order_id = uuidv7()",
            "retry_attempt = 1",
            "pii_digest = sha256('another')",
            "hash = sha256('another')",
        ],
    )
    def test_a_changed_row_is_named_first(self, world: World, change: str) -> None:
        tamper = f"UPDATE order_audit_log SET {change} WHERE user_id = %(hedger)s AND version = 4"

        with tampered(world.market, tamper, **users(world)):
            faults = audit_faults(world.market)

        assert faults[0] == (str(world.hedger.account_id), 4, "its content was changed")

    def test_a_changed_row_with_a_hash_made_to_fit_breaks_the_next(self, world: World) -> None:
        tampers = (
            "UPDATE order_audit_log SET reason = 'another' WHERE user_id = %(hedger)s AND version = 4",
            "UPDATE order_audit_log AS l SET hash = sha256(previous_hash || audit_bytes_v1(user_id, account_id, "
            "version, order_id, action, status, details, reason, retry_attempt, pii_digest, utc_text(created_at))) "
            "WHERE user_id = %(hedger)s AND version = 4",
        )

        with tampered(world.market, *tampers, **users(world)):
            faults = audit_faults(world.market)

        assert faults[0] == (str(world.hedger.account_id), 5, "it does not continue the row before")

    def test_a_removed_row_leaves_a_gap(self, world: World) -> None:
        with tampered(
            world.market, "DELETE FROM order_audit_log WHERE user_id = %(hedger)s AND version = 4", **users(world)
        ):
            faults = audit_faults(world.market)

        assert faults == [(str(world.hedger.account_id), 5, "rows before it are missing")]

    def test_a_removed_row_with_the_rest_moved_up(self, world: World) -> None:
        tampers = (
            "DELETE FROM order_audit_log WHERE user_id = %(hedger)s AND version = 4",
            "UPDATE order_audit_log SET version = version - 1 WHERE user_id = %(hedger)s AND version = 5",
        )

        with tampered(world.market, *tampers, **users(world)):
            faults = audit_faults(world.market)

        assert faults[0] == (str(world.hedger.account_id), 4, "it does not continue the row before")

    def test_the_first_row_cannot_go(self, world: World) -> None:
        with tampered(
            world.market, "DELETE FROM order_audit_log WHERE user_id = %(hedger)s AND version = 1", **users(world)
        ):
            faults = audit_faults(world.market)

        assert faults == [(str(world.hedger.account_id), 2, "rows before it are missing")]

    @pytest.mark.parametrize("kept", [9, 1, 0])
    def test_a_cut_tail(self, world: World, kept: int) -> None:
        with tampered(
            world.market,
            f"DELETE FROM order_audit_log WHERE user_id = %(hedger)s AND version > {kept}",
            **users(world),
        ):
            faults = audit_faults(world.market)

        assert faults == [(str(world.hedger.account_id), 11, "the tail of the chain was cut or changed")]

    def test_a_cut_tail_with_the_version_set_back(self, world: World) -> None:
        tampers = (
            "DELETE FROM order_audit_log WHERE user_id = %(hedger)s AND version > 9",
            "UPDATE accounts SET audit_version = 9 WHERE user_id = %(hedger)s",
        )

        with tampered(world.market, *tampers, **users(world)):
            faults = audit_faults(world.market)

        assert faults == [(str(world.hedger.account_id), 9, "the tail of the chain was cut or changed")]

    @pytest.mark.parametrize(
        "change", ["email = 'else@example.com'", "ip_address = '192.0.2.2'", "user_agent = NULL", "salt = '\\x00'"]
    )
    def test_changed_personal_data(self, world: World, change: str) -> None:
        tamper = (
            f"UPDATE audit_pii SET {change} WHERE audit_id = "
            "(SELECT id FROM order_audit_log WHERE user_id = %(hedger)s AND version = 2)"
        )

        with tampered(world.market, tamper, **users(world)):
            faults = audit_faults(world.market)

        assert faults == [(str(world.hedger.account_id), 2, "its personal data was changed")]

    def test_personal_data_put_beside_a_row_that_had_none(self, world: World) -> None:
        tamper = (
            "INSERT INTO audit_pii (user_id, audit_id, salt, email) SELECT user_id, id, '\\x00', 'x@example.com' "
            "FROM order_audit_log WHERE user_id = %(hedger)s AND version = 3"
        )

        with tampered(world.market, tamper, **users(world)):
            faults = audit_faults(world.market)

        assert faults == [(str(world.hedger.account_id), 3, "its personal data was changed")]

    def test_erased_personal_data_leaves_the_chain_whole(self, world: World) -> None:
        with tampered(world.market, "DELETE FROM audit_pii WHERE user_id = %(hedger)s", **users(world)):
            assert audit_faults(world.market) == []

    @pytest.mark.parametrize(
        ("tamper", "version", "problem"),
        [
            ("UPDATE platform_audit_log SET actor = 'another' WHERE version = 1", 1, "its content was changed"),
            ("DELETE FROM platform_audit_log WHERE version = 1", 2, "rows before it are missing"),
            ("DELETE FROM platform_audit_log WHERE version = 2", 2, "the tail of the chain was cut or changed"),
        ],
    )
    def test_the_chain_of_the_platform(self, world: World, tamper: str, version: int, problem: str) -> None:
        with tampered(world.market, tamper):
            faults = audit_faults(world.market)

        assert faults == [("platform", version, problem)]


LAST_ORDER = "(SELECT id FROM orders WHERE user_id = %(netter)s ORDER BY id DESC LIMIT 1)"
FIRST_ORDER = "(SELECT id FROM orders WHERE user_id = %(netter)s ORDER BY id LIMIT 1)"
COPY_OF_ORDER = (
    "INSERT INTO orders SELECT (jsonb_populate_record(o, jsonb_build_object('id', uuidv7(), 'status', 'denied', "
    "'failure_code', 'X', 'filled_quantity', 0, 'average_price', NULL))).* FROM orders AS o WHERE id = " + LAST_ORDER
)
RESTING = "(SELECT id FROM orders WHERE user_id = %(rester)s AND status = 'new')"
DENIED = "(SELECT id FROM orders WHERE user_id = %(rester)s AND status = 'denied')"
CANCELED = "(SELECT id FROM orders WHERE user_id = %(rester)s AND status = 'canceled')"
CLOSING = "(SELECT id FROM orders WHERE user_id = %(rester)s AND side = 'sell')"
REPLACED = "(SELECT id FROM orders WHERE user_id = %(replacer)s AND status = 'replaced')"
REPLACING = f"(SELECT id FROM orders WHERE user_id = %(replacer)s AND replaces_order_id = {REPLACED})"
NOT_REPLACED = "(SELECT replaces_order_id FROM orders WHERE user_id = %(replacer)s AND status = 'denied')"
TRAILING = "(SELECT id FROM orders WHERE user_id = %(trailer)s AND status = 'new')"
TRIGGERED = "(SELECT id FROM orders WHERE user_id = %(trailer)s AND status = 'triggered')"
FILLED_IN_PART = "(SELECT id FROM orders WHERE user_id = %(linker)s AND status = 'partially_filled')"
CUT = "(SELECT id FROM orders WHERE user_id = %(linker)s AND canceled_quantity > 0)"
HELD = (
    "(SELECT id FROM orders WHERE user_id = %(linker)s AND contingency = 'bracket_exit' AND held_quantity > 0 "
    "AND order_type = 'stop')"
)
SET_TO_WORK = (
    "(SELECT id FROM orders WHERE user_id = %(linker)s AND contingency = 'bracket_exit' AND held_quantity = 0 "
    "AND order_type = 'stop')"
)
ICEBERG = "(SELECT id FROM orders WHERE user_id = %(linker)s AND post_only)"
TIMED = "(SELECT id FROM orders WHERE user_id = %(linker)s AND active_at IS NOT NULL)"


def reading(rule: str, value: int, after: str = "0") -> str:
    """The statement by which the alert of `rule` is breached at `value`, `after` some time (an interval)."""
    return (
        f"SELECT record_readings(jsonb_build_object('version', 1, 'at', clock_timestamp() + interval '{after}', "
        f"'samples', '[]'::jsonb, 'readings', jsonb_build_array(jsonb_build_object('rule', '{rule}', 'subject', '', "
        f"'verdict', 'breached', 'value', {value}, 'samples', 1))))"
    )


SECOND_ACCOUNT = "INSERT INTO accounts (user_id, currency, balance) VALUES (%(replacer)s, 'USD', 5)"
THREAT = (reading("SECURITY_THREAT", 1), reading("SECURITY_THREAT", 2))
SILENT = reading("MARGIN_WATCH_SILENT", 400)
STILL_SILENT = reading("MARGIN_WATCH_SILENT", 400, "1 hour")
# The hedger's two lots have lost more than the balance: an episode begins.
CALLED = (
    "UPDATE quotes SET bid = 0.6000, ask = 0.6002, quoted_at = clock_timestamp(), received_at = clock_timestamp() "
    "WHERE symbol = 'EURUSD'",
    "SELECT record_margin_call(jsonb_build_object('version', 1, 'user_id', user_id, 'account_id', id)) "
    "FROM accounts WHERE user_id = %(hedger)s",
)
ANOTHER_EPISODE = "the audit tells another episode below the margin levels"
EPISODE_TOLD_OTHERWISE = "the events tell otherwise of an episode below the margin levels"
# An order of the platform's own: without a key, so that nothing but its event tells of it.
WITHOUT_KEY = (
    f"DELETE FROM idempotency_keys WHERE (answer ->> 'order_id')::uuid = {CLOSING}",
    f"UPDATE orders SET idempotency_key = NULL WHERE id = {CLOSING}",
)
# what is done -> (the statements, the invariant that breaks, what is said)
MUTATIONS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "an order without its fill": ((f"DELETE FROM fills WHERE order_id = {LAST_ORDER}",), "I3", "its fills sum to 0"),
    "a fill of another quantity": (
        (f"UPDATE fills SET quantity = 0.5 WHERE order_id = {LAST_ORDER}",),
        "I3",
        "filled 0.4, its fills sum to 0.5",
    ),
    "a fill of another price": ((f"UPDATE fills SET price = 1.2 WHERE order_id = {LAST_ORDER}",), "I3", "fills sum to"),
    "a fill of another profit": (
        (f"UPDATE fills SET realized_pnl = 1 WHERE order_id = {LAST_ORDER}",),
        "I3",
        "the ledger tells another realized P&L",
    ),
    **{
        f"a fill of another {column} than the audit's": (
            (f"UPDATE fills SET {column} = {value} WHERE order_id = {LAST_ORDER}",),
            "I3",
            "the audit tells another fill",
        )
        for column, value in (
            ("realized_pnl", "1"),
            ("commission", "commission + 1"),
            ("order_id", FIRST_ORDER),
        )
    },
    **{
        f"a commission of another {column} than its fill's": (
            (
                f"UPDATE ledger_entries SET {column} = {value} WHERE order_id = {LAST_ORDER} "
                "AND entry_type = 'commission'",
            ),
            "I3",
            "the ledger tells another commission",
        )
        for column, value in (("order_id", FIRST_ORDER), ("position_id", "NULL"))
    },
    "a profit of no fill": (
        (f"DELETE FROM fills WHERE order_id = {LAST_ORDER}",),
        "I3",
        "the ledger tells another realized P&L",
    ),
    "a profit that was not booked": (
        (f"DELETE FROM ledger_entries WHERE order_id = {LAST_ORDER} AND entry_type = 'realized_pnl'",),
        "I3",
        "the ledger tells another realized P&L",
    ),
    "an order that is told as filled by more": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{orders,1,filled_quantity}', '9') "
            f"WHERE payload -> 'orders' -> 1 ->> 'order_id' = {LAST_ORDER}::text",
        ),
        "I3",
        "no event tells of it",
    ),
    "a fill on the other side": (
        (f"UPDATE fills SET side = 'buy' WHERE order_id = {LAST_ORDER}",),
        "I2",
        "1.4 lots by its fills, 0.6 by its row",
    ),
    "a balance moved past the ledger": (
        ("UPDATE accounts SET balance = balance + 0.01 WHERE user_id = %(netter)s",),
        "I2",
        "the ledger sums to",
    ),
    "a touch that took more margin than was free": (
        (
            "UPDATE order_audit_log SET details = details || '{\"free_margin_after\": -1}' WHERE user_id = %(linker)s "
            "AND action = 'EXECUTED'",
        ),
        "I4",
        "was filled by a touch and left free margin -1",
    ),
    "an order that was replaced before it worked": (
        (f"UPDATE order_audit_log SET status = 'replaced' WHERE order_id = {RESTING} AND action = 'APPROVED'",),
        "I3",
        "the audit steps from pending_new to replaced",
    ),
    "an entry that the account does not count": (
        ("UPDATE accounts SET ledger_version = ledger_version + 1 WHERE user_id = %(netter)s",),
        "I2",
        ", the ledger sums to ",
    ),
    "margin that is reserved for nothing": (
        ("UPDATE accounts SET margin_reserved = 1 WHERE user_id = %(netter)s",),
        "I3",
        "reserved 1, in flight 0",
    ),
    "a balance moved past the audit": (
        ("UPDATE accounts SET balance = balance + 0.01 WHERE user_id = %(netter)s",),
        "I2",
        ", by the audit ",
    ),
    "a balance of an account that nothing was booked on": (
        (SECOND_ACCOUNT,),
        "I2",
        "balance is 5, by the audit 0",
    ),
    "a balance without a ledger": (
        (SECOND_ACCOUNT,),
        "I2",
        "balance is 5, the ledger sums to 0",
    ),
    "a ledger row missing": (
        (f"DELETE FROM ledger_entries WHERE order_id = {LAST_ORDER} AND entry_type = 'realized_pnl'",),
        "I2",
        "the ledger sums to",
    ),
    "the last ledger row missing": (
        (f"DELETE FROM ledger_entries WHERE order_id = {LAST_ORDER} AND entry_type = 'commission'",),
        "I3",
        "the ledger tells another commission",
    ),
    "a fill and its order at another price": (
        (
            f"UPDATE fills SET price = price + 1 WHERE order_id = {LAST_ORDER}",
            f"UPDATE orders SET average_price = average_price + 1 WHERE id = {LAST_ORDER}",
        ),
        "I3",
        "the audit tells another fill",
    ),
    "an order of another instrument": (
        (f"UPDATE orders SET symbol = 'GBPUSD' WHERE id = {LAST_ORDER}",),
        "I3",
        "the audit tells another order",
    ),
    "money from nowhere": (
        (
            "INSERT INTO ledger_entries (user_id, account_id, entry_number, entry_type, amount, balance_after, "
            "currency, created_at) SELECT user_id, id, ledger_version + 1, 'deposit', 1000, balance + 1000, currency, "
            "clock_timestamp() FROM accounts WHERE user_id = %(netter)s",
            "UPDATE accounts SET balance = balance + 1000, ledger_version = ledger_version + 1 "
            "WHERE user_id = %(netter)s",
        ),
        "I2",
        "money moved without a fill that the audit tells otherwise",
    ),
    "a withdrawal of another amount": (
        (
            "UPDATE ledger_entries SET amount = amount + 1, balance_after = balance_after + 1 "
            "WHERE user_id = %(kept)s AND entry_type = 'withdrawal'",
        ),
        "I2",
        "money moved without a fill that the audit tells otherwise",
    ),
    "an adjustment forgotten": (
        (
            "DELETE FROM ledger_entries WHERE user_id = %(kept)s AND entry_type = 'adjustment'",
            "UPDATE accounts SET balance = balance + 0.01, ledger_version = ledger_version - 1 "
            "WHERE user_id = %(kept)s",
        ),
        "I2",
        "money moved without a fill that the audit tells otherwise",
    ),
    "a withdrawal that no event tells of": (
        (
            "UPDATE events SET event_type = 'account.deposited' WHERE user_id = %(kept)s "
            "AND event_type = 'account.withdrawn'",
        ),
        "I3",
        "the events tell otherwise of what an operator did",
    ),
    "an adjustment told with another balance": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{account,balance}', '1') WHERE user_id = %(kept)s "
            "AND event_type = 'account.adjusted'",
        ),
        "I3",
        "the events tell otherwise of what an operator did",
    ),
    "a refused withdrawal that no event tells of": (
        (
            "UPDATE events SET created_at = created_at + interval '1 microsecond' WHERE user_id = %(kept)s "
            "AND event_type = 'account.withdrawal_refused'",
        ),
        "I3",
        "the events tell otherwise of what an operator did",
    ),
    "an adjustment that no event tells of": (
        ("DELETE FROM events WHERE user_id = %(kept)s AND event_type = 'account.adjusted'",),
        "I3",
        "the events tell otherwise of what an operator did",
    ),
    "an event of an adjustment that was not": (
        ("DELETE FROM order_audit_log WHERE user_id = %(kept)s AND action = 'ADJUSTED'",),
        "I3",
        "the events tell otherwise of what an operator did",
    ),
    "a change told as another": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{account,leverage}', '500') WHERE user_id = %(kept)s "
            "AND event_type = 'account.changed'",
        ),
        "I3",
        "the events tell otherwise of what an operator did",
    ),
    "a leverage raised past the audit": (
        ("UPDATE accounts SET leverage = 500 WHERE user_id = %(kept)s",),
        "I2",
        "the audit's last change made it 30, it is 500",
    ),
    "a position mode changed past the audit": (
        ("UPDATE accounts SET position_mode = 'hedging' WHERE user_id = %(kept)s",),
        "I2",
        'the audit\'s last change made it "netting", it is "hedging"',
    ),
    "a margin profile changed past the audit": (
        ("UPDATE accounts SET margin_profile = 'standard' WHERE user_id = %(kept)s",),
        "I2",
        'the audit\'s last change made it "retail", it is "standard"',
    ),
    "a client verified past the audit": (
        ("UPDATE profiles SET kyc_status = 'verified' WHERE id = %(kept)s",),
        "I2",
        'the audit\'s last change made it "rejected", it is "verified"',
    ),
    "a client let in again past the audit": (
        ("UPDATE profiles SET account_status = 'active' WHERE id = %(kept)s",),
        "I2",
        'the audit\'s last change made it "suspended"',
    ),
    "a tier raised past the audit": (
        ("UPDATE profiles SET account_tier = 'platinum' WHERE id = %(kept)s",),
        "I2",
        'the audit\'s last change made it "silver"',
    ),
    "a change that began elsewhere than the one before it ended": (
        (
            "UPDATE order_audit_log SET details = jsonb_set(details, '{before,leverage}', '77') "
            "WHERE user_id = %(kept)s AND details -> 'after' ->> 'leverage' = '30'",
        ),
        "I2",
        "changed from 77, where the audit had left it at 50",
    ),
    "a commission of no fill": (
        (
            "INSERT INTO ledger_entries (user_id, account_id, entry_number, entry_type, amount, balance_after, "
            "currency, created_at) SELECT user_id, id, ledger_version + 1, 'commission', -1, balance - 1, currency, "
            "clock_timestamp() FROM accounts WHERE user_id = %(netter)s",
            "UPDATE accounts SET balance = balance - 1, ledger_version = ledger_version + 1 WHERE user_id = %(netter)s",
        ),
        "I3",
        "the ledger tells another commission",
    ),
    "another stop loss": (
        ("UPDATE positions SET stop_loss = 0.5 WHERE user_id = %(netter)s",),
        "I2",
        "the audit tells another position",
    ),
    "an event without the position": (
        ("UPDATE events SET payload = payload - 'positions' WHERE user_id = %(netter)s AND sequence = 3",),
        "I3",
        "no event tells of it",
    ),
    "a client_order_id forgotten": (
        (f"UPDATE orders SET client_order_id = 'mine' WHERE id = {LAST_ORDER}",),
        "I3",
        "its client_order_id is not kept",
    ),
    "a ledger row and the balance changed together": (
        (
            f"UPDATE ledger_entries SET amount = amount + 1 WHERE order_id = {LAST_ORDER} "
            "AND entry_type = 'realized_pnl'",
            "UPDATE accounts SET balance = balance + 1 WHERE user_id = %(netter)s",
        ),
        "I2",
        "the sum so far",
    ),
    "a ledger number skipped": (
        ("UPDATE ledger_entries SET entry_number = 9 WHERE user_id = %(netter)s AND entry_number = 4",),
        "I2",
        "stands in place 4",
    ),
    "an audit row missing": (
        (f"DELETE FROM order_audit_log WHERE order_id = {LAST_ORDER} AND action = 'FILLED'",),
        "I3",
        "status is filled, by the audit pending_new",
    ),
    "an audit row in the middle missing": (
        (f"DELETE FROM order_audit_log WHERE order_id = {LAST_ORDER} AND action = 'APPROVED'",),
        "I6",
        "rows before it are missing",
    ),
    "an audit that steps where no order may": (
        (f"UPDATE order_audit_log SET status = 'expired' WHERE order_id = {LAST_ORDER} AND action = 'EXECUTED'",),
        "I3",
        "the audit steps from",
    ),
    "an event missing": (
        (
            f"DELETE FROM events WHERE payload @> jsonb_build_object('fills', jsonb_build_array(jsonb_build_object("
            f"'order_id', {LAST_ORDER})))",
        ),
        "I7",
        "the account says 3",
    ),
    "an event in the middle missing": (
        ("DELETE FROM events WHERE user_id = %(netter)s AND sequence = 2",),
        "I7",
        "2 events up to 3",
    ),
    "an event out of sequence": (
        ("UPDATE events SET sequence = 9 WHERE user_id = %(netter)s AND sequence = 3",),
        "I7",
        "up to 9",
    ),
    "an event of something else": (
        ("UPDATE events SET payload = '{}' WHERE user_id = %(netter)s AND sequence = 3",),
        "I3",
        "no event tells of it",
    ),
    "an execution that left less than nothing free": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{account,free_margin}', '-0.01') "
            "WHERE user_id = %(netter)s AND sequence = 2",
        ),
        "I4",
        "left free margin -0.01",
    ),
    "a stream pushed beyond what there is": (
        (
            "INSERT INTO event_streams (user_id, account_id, pushed_sequence) SELECT user_id, id, 99 FROM accounts "
            "WHERE user_id = %(netter)s",
        ),
        "I7",
        "pushed 99 of 3",
    ),
    "a second order under one key": ((COPY_OF_ORDER,), "I1", "a second order under its key"),
    "the answer of a key missing": (
        (f"DELETE FROM idempotency_keys WHERE (answer ->> 'order_id')::uuid = {LAST_ORDER}",),
        "I1",
        "the answer of its key is missing",
    ),
    "the answer of another order": (
        (
            "UPDATE idempotency_keys SET answer = jsonb_set(answer, '{order_id}', to_jsonb((SELECT min(id::text) "
            f"FROM orders WHERE user_id = %(netter)s))) WHERE (answer ->> 'order_id')::uuid = {LAST_ORDER}",
        ),
        "I1",
        "another order's",
    ),
    "the answer of no order": (
        (
            "UPDATE idempotency_keys SET answer = jsonb_set(answer, '{order_id}', to_jsonb(uuidv7())) "
            f"WHERE (answer ->> 'order_id')::uuid = {LAST_ORDER}",
        ),
        "I1",
        "an order that is not there",
    ),
    "another margin": (
        ("UPDATE positions SET margin_used = margin_used - 1 WHERE user_id = %(netter)s",),
        "I2",
        "the audit tells another position",
    ),
    "another quantity held": (
        ("UPDATE positions SET quantity = 0.5 WHERE user_id = %(netter)s",),
        "I2",
        "0.6 lots by its fills, 0.5 by its row",
    ),
    "another entry price": (
        ("UPDATE positions SET entry_price = 1.2 WHERE user_id = %(netter)s",),
        "I2",
        "the audit tells another position",
    ),
    "a position without a history": (
        (
            "INSERT INTO positions (user_id, account_id, order_id, symbol, side, quantity, opened_quantity, "
            f"entry_price) SELECT user_id, account_id, id, symbol, 'long', 1, 1, 1 FROM orders WHERE id = {LAST_ORDER}",
        ),
        "I2",
        "the audit tells another position",
    ),
    "a cash account that is short": (
        ("UPDATE positions SET side = 'short' WHERE user_id = %(holder)s",),
        "I2",
        "a cash account is short",
    ),
    "a margin told beside the positions": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{account,margin_used}', '1') "
            "WHERE user_id = %(hedger)s AND sequence = 3",
        ),
        "I4",
        "margin used is told as 1, its positions sum to",
    ),
    "a credit for hedges told beside the positions": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{account,hedged_margin_credit}', '1') "
            "WHERE user_id = %(hedger)s AND sequence = 3",
        ),
        "I4",
        "margin used is told as 2201.52, its positions sum to 2200.52",
    ),
    "a credit for hedges of more than there is": (
        (
            "UPDATE events SET payload = jsonb_set(jsonb_set(payload, '{account,margin_used}', '-1'), "
            "'{account,hedged_margin_credit}', '2201.52') WHERE user_id = %(hedger)s AND sequence = 3",
        ),
        "I4",
        "margin used is told as -1, with a credit of 2201.52",
    ),
    "an order that rests for less than was asked": (
        (f"UPDATE orders SET leaves_quantity = 0.5 WHERE id = {RESTING}",),
        "I3",
        "leaves 0.5 of 1 in state new",
    ),
    "a canceled order that still has something left": (
        (f"UPDATE orders SET leaves_quantity = 1 WHERE id = {CANCELED}",),
        "I3",
        "leaves 1 of 1 in state canceled",
    ),
    "another limit": (
        (f"UPDATE orders SET limit_price = 1.22 WHERE id = {RESTING}",),
        "I3",
        "the audit tells another order",
    ),
    "another trigger": (
        (f"UPDATE orders SET stop_price = 1.19 WHERE id = {RESTING}",),
        "I3",
        "the audit tells another order",
    ),
    "another limit of a denied order": (
        (f"UPDATE orders SET limit_price = 1.06 WHERE id = {DENIED}",),
        "I3",
        "the audit tells another order",
    ),
    "another exit of an order that rests": (
        (f"UPDATE orders SET stop_loss = NULL WHERE id = {RESTING}",),
        "I3",
        "the audit tells another order",
    ),
    "an order that nobody submitted": (
        (f"DELETE FROM order_audit_log WHERE order_id = {RESTING} AND action = 'SUBMITTED'",),
        "I3",
        "the audit tells another order",
    ),
    "a resting order canceled past the audit": (
        (f"UPDATE orders SET status = 'canceled', leaves_quantity = 0 WHERE id = {RESTING}",),
        "I3",
        "leaves_quantity is 0, by the audit 1; status is canceled, by the audit new",
    ),
    "a canceled order that rests again": (
        (f"UPDATE orders SET status = 'new', leaves_quantity = 1 WHERE id = {CANCELED}",),
        "I3",
        "status is new, by the audit canceled",
    ),
    "a cancellation that the audit does not tell": (
        (f"DELETE FROM order_audit_log WHERE order_id = {CANCELED} AND action = 'CANCELED'",),
        "I3",
        "status is canceled, by the audit new",
    ),
    "a cancellation whose event tells of nothing": (
        (
            "UPDATE events SET payload = '{\"orders\": []}' WHERE user_id = %(rester)s "
            "AND event_type = 'order.canceled'",
        ),
        "I3",
        "no event tells of it",
    ),
    "an order that rests without its event": (
        ("UPDATE events SET payload = '{}' WHERE user_id = %(rester)s AND sequence = 2",),
        "I3",
        "no event tells of it",
    ),
    "an event of another quantity": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{orders,0,quantity}', '2') "
            "WHERE user_id = %(rester)s AND sequence = 2",
        ),
        "I3",
        "no event tells of it",
    ),
    "a later event that tells an older state": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{orders,0,status}', '\"new\"') "
            "WHERE user_id = %(rester)s AND event_type = 'order.canceled'",
        ),
        "I3",
        "no event tells of it",
    ),
    "an order without a key whose event tells of nothing": (
        (
            *WITHOUT_KEY,
            "UPDATE events SET payload = jsonb_set(payload, '{orders}', '[]') WHERE user_id = %(rester)s "
            "AND sequence = (SELECT max(sequence) FROM events WHERE user_id = %(rester)s)",
        ),
        "I3",
        "no event tells of it",
    ),
    "an order without a key whose event leaves out the fill": (
        (
            *WITHOUT_KEY,
            "UPDATE events SET payload = payload - 'fills' WHERE user_id = %(rester)s "
            "AND sequence = (SELECT max(sequence) FROM events WHERE user_id = %(rester)s)",
        ),
        "I3",
        "no event tells of it",
    ),
    "an answer that names another event": (
        (
            "UPDATE idempotency_keys SET answer = jsonb_set(answer, '{sequence}', '1') "
            f"WHERE (answer ->> 'order_id')::uuid = {CANCELED} AND answer ->> 'outcome' = 'canceled'",
        ),
        "I1",
        "no event tells of its answer",
    ),
    "an answer of another outcome": (
        (
            "UPDATE idempotency_keys SET answer = jsonb_set(answer, '{outcome}', '\"new\"') "
            f"WHERE (answer ->> 'order_id')::uuid = {CANCELED} AND answer ->> 'outcome' = 'canceled'",
        ),
        "I1",
        "no event tells of its answer",
    ),
    "an order that was replaced and works on": (
        (f"UPDATE orders SET status = 'new', leaves_quantity = quantity WHERE id = {REPLACED}",),
        "I3",
        "its state is new, 1 orders take its place",
    ),
    "an order that was replaced by nothing": (
        (f"UPDATE orders SET replaces_order_id = NULL WHERE id = {REPLACING}",),
        "I3",
        "its state is replaced, 0 orders take its place",
    ),
    "an order that replaces another one than it says": (
        (f"UPDATE orders SET replaces_order_id = {NOT_REPLACED} WHERE id = {REPLACING}",),
        "I3",
        "the audit tells another order: replaces_order_id is",
    ),
    "an order that replaces one of the other side": (
        (f"UPDATE orders SET side = 'sell' WHERE id = {REPLACED}",),
        "I3",
        "it replaces an order of another kind",
    ),
    "a denied replacement of another one": (
        ("UPDATE orders SET replaces_order_id = NULL WHERE user_id = %(replacer)s AND status = 'denied'",),
        "I3",
        "the audit tells another order: replaces_order_id is",
    ),
    "an event without the order that was replaced": (
        ("UPDATE events SET payload = payload #- '{orders,0}' WHERE user_id = %(replacer)s AND sequence = 3",),
        "I3",
        "no event tells that it replaces the other",
    ),
    "an order replaced without a word": (
        (f"DELETE FROM order_audit_log WHERE order_id = {REPLACED} AND action = 'REPLACED'",),
        "I3",
        "the audit of what it replaces tells otherwise",
    ),
    "an intervention without a word": (
        (
            "INSERT INTO interventions (kind, target, reason, actor, started_at, expires_at) VALUES "
            "('maintenance', 'platform', 'unsaid', 'nobody', clock_timestamp(), clock_timestamp() + interval '1 hour')",
        ),
        "I3",
        "intervention maintenance: the audit tells of 0 starts and 0 ends",
    ),
    "an intervention that ended without a word": (
        (
            """SELECT start_intervention('{"version": 1, "kind": "maintenance", "reason": "a test", "seconds": 60,
            "actor": "tests"}')""",
            "UPDATE interventions SET undone_at = clock_timestamp(), undone_by = 'nobody'",
        ),
        "I3",
        "intervention maintenance: the audit tells of 1 starts and 0 ends",
    ),
    **{
        f"an alert that {became} without a word": (
            (SILENT, f"UPDATE alerts SET {values}"),
            "I3",
            "the audit tells another life of alert MARGIN_WATCH_SILENT",
        )
        for became, values in (
            ("was taken on", "acknowledged_at = opened_at, acknowledged_by = 'nobody'"),
            ("ended", "state = 'cleared', ended_at = clock_timestamp()"),
            ("was resolved", "state = 'resolved', ended_at = clock_timestamp(), resolved_by = 'nobody'"),
        )
    },
    "an alert that opened without a word": (
        (*THREAT, "DELETE FROM platform_audit_log WHERE action = 'ALERT_OPENED'"),
        "I3",
        "the audit tells another life of alert SECURITY_THREAT",
    ),
    "an alert that nobody could be told of": (
        (SILENT, "UPDATE alert_notifications SET state = 'failed', ended_at = created_at"),
        "I3",
        "nobody is told of alert MARGIN_WATCH_SILENT",
    ),
    "an alert of which only something else is told": (
        (SILENT, "UPDATE alert_notifications SET kind = 'escalated'"),
        "I3",
        "nobody is told of alert MARGIN_WATCH_SILENT",
    ),
    "an alert whose escalation nobody is told of": (
        (
            SILENT,
            STILL_SILENT,
            "UPDATE alert_notifications SET state = 'failed', ended_at = created_at WHERE kind = 'escalated' "
            "AND level = 2",
        ),
        "I3",
        "nobody is told that alert MARGIN_WATCH_SILENT has escalated to level 2",
    ),
    "an alert that worsened and nobody is told": (
        (
            *THREAT,
            "UPDATE alert_notifications SET state = 'failed', ended_at = created_at WHERE kind = 'worsened'",
        ),
        "I3",
        "alert SECURITY_THREAT worsened 1 times by the audit, of 0 somebody is told",
    ),
    "an alert that is told to have worsened and has not": (
        (THREAT[0], "UPDATE alert_notifications SET kind = 'worsened'"),
        "I3",
        "alert SECURITY_THREAT worsened 0 times by the audit, of 1 somebody is told",
    ),
    "an alert that worsened and its timeline does not tell": (
        (*THREAT, "UPDATE incident_events SET kind = 'notified' WHERE kind = 'worsened'"),
        "I3",
        "the incident of alert SECURITY_THREAT is missing, or tells another life",
    ),
    **{
        name: (
            (SILENT, STILL_SILENT, *statements),
            "I3",
            "the incident of alert MARGIN_WATCH_SILENT is missing, or tells another life",
        )
        for name, statements in {
            "an incident that ended before its alert": ("UPDATE incidents SET closed_at = clock_timestamp()",),
            "a critical alert without an incident": ("DELETE FROM incident_events", "DELETE FROM incidents"),
            "an incident of an alert that is not critical": ("UPDATE alerts SET severity = 'warning'",),
            "a line of a timeline missing": ("UPDATE incident_events SET place = 9 WHERE place = 2",),
            "a timeline that does not begin with its alert": (
                "UPDATE incident_events SET kind = 'notified' WHERE kind = 'opened'",
            ),
            "a timeline in which something comes before its alert": (
                "UPDATE incident_events SET kind = CASE place WHEN 1 THEN 'escalated' ELSE 'opened' END "
                "WHERE place <= 2",
            ),
            "a timeline that ends before its alert": (
                "UPDATE incident_events SET kind = 'cleared' WHERE kind = 'escalated'",
            ),
        }.items()
    },
    **{
        name: ((*CALLED, statement), "I3", ANOTHER_EPISODE)
        for name, statement in {
            "an episode at another level": "UPDATE margin_call_episodes SET level_name = 'margin_call'",
            "an episode that changed at another time": (
                "UPDATE margin_call_episodes SET changed_at = changed_at + interval '1 microsecond'"
            ),
            "an episode that was left without a word": (
                "UPDATE margin_call_episodes SET left_at = changed_at, left_equity = entered_equity"
            ),
            "an episode that is not there": "DELETE FROM margin_call_episodes",
            "an episode that began without a word": "DELETE FROM order_audit_log WHERE details ? 'episode_id'",
        }.items()
    },
    **{
        name: ((*CALLED, statement), "I3", EPISODE_TOLD_OTHERWISE)
        for name, statement in {
            "an episode that no event tells of": "DELETE FROM events WHERE payload -> 'risk' ? 'episode_id'",
            "an event of an episode that was not": "DELETE FROM order_audit_log WHERE details ? 'episode_id'",
            "an event of another episode": (
                "UPDATE events SET payload = jsonb_set(payload, '{risk,episode_id}', to_jsonb(uuidv7())) "
                "WHERE payload -> 'risk' ? 'episode_id'"
            ),
            "an event of another level": (
                "UPDATE events SET payload = jsonb_set(payload, '{risk,level}', '\"margin_call\"') "
                "WHERE payload -> 'risk' ? 'episode_id'"
            ),
        }.items()
    },
    "an order that replaces one of another symbol": (
        (f"UPDATE orders SET symbol = 'GBPUSD' WHERE id = {REPLACED}",),
        "I3",
        "it replaces an order of another kind",
    ),
    "an order that replaces one of another type": (
        (f"UPDATE orders SET order_type = 'stop', stop_price = 1.2, limit_price = NULL WHERE id = {REPLACED}",),
        "I3",
        "it replaces an order of another kind",
    ),
    "an order that replaces a later one": (
        (f"UPDATE orders SET created_at = clock_timestamp() WHERE id = {REPLACED}",),
        "I3",
        "it replaces an order of another kind",
    ),
    "an order that replaces one of another account": (
        (
            SECOND_ACCOUNT,
            f"UPDATE orders SET account_id = (SELECT id FROM accounts WHERE balance = 5) WHERE id = {REPLACED}",
        ),
        "I3",
        "it replaces an order of another kind",
    ),
    "an order that took another one's place by the audit": (
        (f"UPDATE order_audit_log SET order_id = {NOT_REPLACED} WHERE order_id = {REPLACED} AND action = 'REPLACED'",),
        "I3",
        "the audit of what it replaces tells otherwise",
    ),
    "an order that trails and nothing says where": (
        ("DELETE FROM trailing_levels WHERE user_id = %(trailer)s AND kind = 'order'",),
        "I3",
        "nothing says where it trails",
    ),
    **{
        f"a level of another {column}": (
            (f"UPDATE trailing_levels SET {column} = {value} WHERE subject_id = {TRAILING}",),
            "I3",
            "nothing says where it trails",
        )
        for column, value in (
            ("account_id", "uuidv7()"),
            ("symbol", "'EURUSD'"),
            ("watch", "'ask_rises'"),
            ("trail_percent", "2"),
        )
    },
    "a level of what does not trail": (
        (f"UPDATE trailing_levels SET subject_id = {TRIGGERED} WHERE subject_id = {TRAILING}",),
        "I3",
        "a level trails for it though it does not wait for one",
    ),
    "a position whose stop nothing moves": (
        ("DELETE FROM trailing_levels WHERE user_id = %(trailer)s AND kind = 'position'",),
        "I3",
        "the level of the feed by  at ",
    ),
    "a position whose stop trails at another distance": (
        ("UPDATE trailing_levels SET trail_amount = 0.003 WHERE user_id = %(trailer)s AND kind = 'position'",),
        "I3",
        "its stop trails by 0.002 from 1.1030, the level of the feed by 0.003 at 1.1030",
    ),
    **{
        f"a position whose stop trails by a level of another {column}": (
            (f"UPDATE trailing_levels SET {column} = {value} WHERE user_id = %(trailer)s AND kind = 'position'",),
            "I3",
            "its stop trails by 0.002 from 1.1030, the level of the feed by 0.002 at 1.1030",
        )
        for column, value in (("account_id", "uuidv7()"), ("symbol", "'GBPUSD'"))
    },
    "a short position whose stop has gone back": (
        (
            "UPDATE positions SET side = 'short' WHERE user_id = %(trailer)s AND trail_distance IS NOT NULL",
            "UPDATE trailing_levels SET level = level + 0.001 WHERE user_id = %(trailer)s AND kind = 'position'",
        ),
        "I3",
        "its stop trails by 0.002 from 1.1030, the level of the feed by 0.002 at 1.1040",
    ),
    "a position whose stop has gone back": (
        ("UPDATE trailing_levels SET level = level - 0.001 WHERE user_id = %(trailer)s AND kind = 'position'",),
        "I3",
        "its stop trails by 0.002 from 1.1030, the level of the feed by 0.002 at 1.1020",
    ),
    "a level that was not the one that was touched": (
        (f"UPDATE orders SET stop_price = 149.9, limit_price = 149.9 WHERE id = {TRIGGERED}",),
        "I3",
        "stop_price is 149.9, by the audit 149.80",
    ),
    "a limit that does not follow from its level": (
        (f"UPDATE orders SET limit_price = 149.9 WHERE id = {TRIGGERED}",),
        "I3",
        "the audit tells another order: limit_price is 149.9, by the audit 149.80",
    ),
    "an exit that works before its entry is filled": (
        (f"UPDATE orders SET held_quantity = 0, trigger_price = stop_price WHERE id = {HELD}",),
        "I3",
        "holds 0, its parent is new with 0 of 1 filled",
    ),
    "an exit that waits for an entry that is filled": (
        (f"UPDATE orders SET held_quantity = 1, trigger_price = NULL WHERE id = {SET_TO_WORK}",),
        "I3",
        "holds 1, its parent is filled with 1 of 1 filled",
    ),
    "an exit that fills more than its entry": (
        (f"UPDATE orders SET filled_quantity = 1 WHERE id = {HELD}",),
        "I3",
        "more was filled than its parent has released",
    ),
    "two that fill more than the quantity of one": (
        (f"UPDATE orders SET filled_quantity = 2.5 WHERE id = {CUT}",),
        "I3",
        "2.5 filled, 1.00 of its linked order",
    ),
    "a fill that was not taken off the other": (
        (f"UPDATE orders SET canceled_quantity = 0 WHERE id = {CUT}",),
        "I3",
        "0 filled, 1.00 of its linked order",
    ),
    "two of which one does not know the other": (
        (f"UPDATE orders SET linked_order_ids = '{{}}' WHERE id = {CUT}",),
        "I3",
        "1.00 filled, 0 of its linked order",
    ),
    "an order that holds more than is left of it": (
        (f"UPDATE orders SET held_quantity = 5 WHERE id = {FILLED_IN_PART}",),
        "I3",
        " left is held, and it waits for 1.24000",
    ),
    "an order that is held and waits for a price": (
        (f"UPDATE orders SET trigger_price = stop_price WHERE id = {HELD}",),
        "I3",
        "left is held, and it waits for 1.0900",
    ),
    "an order that is set to work and waits for no price": (
        (f"UPDATE orders SET trigger_price = NULL WHERE id = {SET_TO_WORK}",),
        "I3",
        "left is held, and it waits for no price",
    ),
    "an order that belongs to no group any more": (
        (f"UPDATE orders SET contingency = NULL WHERE id = {CUT}",),
        "I3",
        "the answer names an order of a group that is not there",
    ),
    "another state": (
        (f"UPDATE orders SET status = 'canceled' WHERE id = {LAST_ORDER}",),
        "I3",
        "status is canceled, by the audit filled",
    ),
}


class TestBooks:
    def test_books_in_order(self, world: World) -> None:
        assert world.market.book_faults() == []

    @pytest.mark.parametrize("mutation", MUTATIONS)
    def test_each_thing_that_is_wrong_is_found(self, world: World, mutation: str) -> None:
        statements, invariant, problem = MUTATIONS[mutation]

        with tampered(world.market, *statements, **users(world)):
            faults = world.market.book_faults()

        assert any(broken == invariant and problem in said for broken, _, said in faults), faults
        assert world.market.book_faults() == []

    @pytest.mark.parametrize("statements", [(SILENT, STILL_SILENT), THREAT, CALLED])
    def test_what_the_mutations_begin_with_is_in_order(self, world: World, statements: tuple[str, ...]) -> None:
        with tampered(world.market, *statements, **users(world)):
            assert world.market.book_faults() == []

    def test_an_order_without_a_key_lacks_only_the_key_that_the_audit_tells(self, world: World) -> None:
        with tampered(world.market, *WITHOUT_KEY, **users(world)):
            ((invariant, _, said),) = world.market.book_faults()

        assert invariant == "I3"
        assert said.startswith("the audit tells another order: idempotency_key is none, by the audit ")

    @pytest.mark.parametrize(
        ("statement", "problem"),
        [
            ("ALTER TABLE order_audit_log DISABLE TRIGGER append_only", "its append-only triggers are not always on"),
            ("ALTER TABLE fills ENABLE TRIGGER append_only_whole", "its append-only triggers are not always on"),
            ("ALTER TABLE ledger_entries NO FORCE ROW LEVEL SECURITY", "its append-only triggers are not always on"),
            ("GRANT UPDATE ON order_audit_log TO function_trader", "function_trader may UPDATE"),
            ("GRANT DELETE ON platform_audit_log TO trading_procedures", "trading_procedures may DELETE"),
            ("GRANT TRUNCATE ON fills TO compliance", "compliance may TRUNCATE"),
            ("GRANT UPDATE ON incident_events TO function_alerts", "function_alerts may UPDATE"),
        ],
    )
    def test_a_guard_that_does_not_stand(self, world: World, statement: str, problem: str) -> None:
        with world.market.owner.transaction(force_rollback=True):
            world.market.execute(statement)
            faults = world.market.book_faults()

        assert [(invariant, said) for invariant, _, said in faults] == [("I6", problem)]

    def test_a_key_that_expired_and_was_removed_may_come_again(self, world: World) -> None:
        # given an order of 40 days ago, whose key was removed since
        aged = "UPDATE orders SET created_at = created_at - interval '40 days' WHERE id = " + LAST_ORDER
        purged = f"DELETE FROM idempotency_keys WHERE (answer ->> 'order_id')::uuid = {LAST_ORDER}"
        with tampered(world.market, aged, purged, **users(world)):
            (order,) = [row for row in world.market.rows("orders", world.netter) if row["side"] == "sell"]

            # when another order comes under the key
            world.market.quote("EURUSD", "1.1050", "1.1052")
            send_as_owner(world, order["idempotency_key"])

            # then nothing is wrong with keys
            assert [fault for fault in world.market.book_faults() if fault[0] == "I1"] == []


def send_as_owner(world: World, key: str) -> None:
    """The procedure within the test's transaction, which the owner may call because it owns the owner."""
    from tests.kit import order_request

    request = order_request(world.netter, idempotency_key=key)
    world.market.execute("SELECT execute_order_atomic(%s)", (Jsonb(request),))


class TestCommand:
    def test_books_that_hold(
        self, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", world.market.database.url)

        assert [verify.main(["audit"]), verify.main(["books"])] == [0, 0]

        assert capsys.readouterr().out.splitlines() == ["The audit holds.", "The books hold."]

    def test_a_broken_audit_is_named_and_exits_1(
        self, database: ScratchDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # given a row that was changed for good
        with Market.opened(database) as market:
            user = market.user()
            market.trade(user)
            market.execute("ALTER TABLE order_audit_log DISABLE TRIGGER append_only")
            market.execute("UPDATE order_audit_log SET reason = 'another' WHERE version = 3")
            ((audit_id,),) = market.execute("SELECT id FROM order_audit_log WHERE version = 3")
        monkeypatch.setenv("DATABASE_URL", database.url)

        codes = [verify.main(["audit"]), verify.main(["books"])]

        said = capsys.readouterr().out
        assert codes == [1, 1]
        assert f"chain {user.account_id}, row 3 ({audit_id}): its content was changed" in said
        assert "its append-only triggers are not always on" in said

    def test_it_says_how_it_is_called(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert verify.main(["everything"]) == 2
        assert "usage" in capsys.readouterr().err
