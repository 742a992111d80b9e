"""The checkers over financing: whatever is wrong with what a roll has charged is found, and named."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.financing import ROLL_DATE, financing_store, hold_schedules, roll, run_rollover, set_rate
from tests.kit.mutations import tampered
from tests.kit.orders import Market
from tests.kit.risk import opened


@dataclass(frozen=True)
class World:
    """One who held a lot over two rolls, one who opened after them, and one who borrowed nothing for it."""

    market: Market
    holder: User
    late: User

    @property
    def users(self) -> dict[str, object]:
        return {"holder": self.holder.user_id, "late": self.late.user_id}


@pytest.fixture(scope="module")
def world(migrated: MigratedTemplate) -> Iterator[World]:
    """One world for the module; every mutation is rolled back."""
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            hold_schedules(market)
            set_rate(market, "EURUSD", "-2.5", "1", markup="0.5")
            holder, late = market.user(), market.user()
            opened(market.trade(holder))
            opened(market.trade(market.user(kind="cash"), quantity="0.1"))
            roll(market)
            roll(market, roll_date=ROLL_DATE + timedelta(days=1))
            opened(market.trade(late))
            with financing_store(market) as store:
                assert run_rollover(store).charged == 2
            yield World(market, holder, late)
    finally:
        scratch.drop()


FIRST = "user_id = %(holder)s AND roll_date = '2026-11-25'"
AUDITED = "user_id = %(holder)s AND action = 'FINANCED' AND details ->> 'roll_date' = '2026-11-25'"
TOLD = "user_id = %(holder)s AND event_type = 'account.financing'"

# what is done -> (the statements, the invariant that breaks, what is said)
MUTATIONS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "a charge of another amount": (
        (f"UPDATE ledger_entries SET amount = amount - 1, balance_after = balance_after - 1 WHERE {FIRST}",),
        "I2",
        "its financing of 2026-11-25 is -10.17, by the audit -9.17",
    ),
    "a charge that left another balance": (
        (f"UPDATE ledger_entries SET balance_after = balance_after + 1 WHERE {FIRST}",),
        "I2",
        "its financing of 2026-11-25 is -9.17, by the audit -9.17",
    ),
    "a charge that was audited at another rate": (
        (f"UPDATE order_audit_log SET details = jsonb_set(details, '{{rate}}', '-2.0') WHERE {AUDITED}",),
        "I2",
        "what was audited comes to -7.64",
    ),
    "a charge of more than was open": (
        (f"UPDATE order_audit_log SET details = jsonb_set(details, '{{quantity}}', '1.001') WHERE {AUDITED}",),
        "I2",
        "its financing of 2026-11-25 is of 1.001 lots, by its fills and the roll of 1",
    ),
    "a charge at another price than the roll's": (
        ("UPDATE instrument_rolls SET bid = 1.0999 WHERE roll_date = '2026-11-25'",),
        "I2",
        "its financing of 2026-11-25 is of 1 lots, by its fills and the roll of 1",
    ),
    "a charge for other days than the roll's": (
        ("UPDATE instrument_rolls SET days = 3 WHERE roll_date = '2026-11-25'",),
        "I2",
        "its financing of 2026-11-25 is of 1 lots",
    ),
    **{
        f"a charge at another {column} than the roll's": (
            (f"UPDATE instrument_rolls SET {column} = {column} + 1 WHERE roll_date = '2026-11-25'",),
            "I2",
            "its financing of 2026-11-25 is of 1 lots, by its fills and the roll of 1",
        )
        for column in ("long_rate", "markup")
    },
    "a charge forgotten": (
        (
            f"DELETE FROM ledger_entries WHERE {FIRST}",
            f"DELETE FROM order_audit_log WHERE {AUDITED}",
        ),
        "I2",
        "its financing of 2026-11-25 is of 0 lots, by its fills and the roll of 1",
    ),
    "a charge twice": (
        (
            "INSERT INTO ledger_entries (user_id, account_id, entry_number, entry_type, amount, balance_after, "
            "currency, position_id, roll_date, created_at) SELECT user_id, account_id, 99, entry_type, amount, "
            "balance_after, "
            f"currency, position_id, roll_date, created_at FROM ledger_entries WHERE {FIRST}",
        ),
        "I2",
        "was charged 2 times for the roll of 2026-11-25",
    ),
    "a charge of a roll that was not": (
        ("DELETE FROM instrument_rolls WHERE roll_date = '2026-11-25'",),
        "I2",
        "its financing of 2026-11-25 is of 1 lots, by its fills and the roll of 0",
    ),
    "a charge of a position that was opened later": (
        (f"UPDATE ledger_entries SET position_id = (SELECT id FROM positions WHERE user_id = %(late)s) WHERE {FIRST}",),
        "I2",
        "its financing of 2026-11-25 is -9.17, by the audit none",
    ),
    "a charge without its date": (
        (f"UPDATE ledger_entries SET roll_date = NULL WHERE {FIRST}",),
        "I2",
        "financing without one",
    ),
    "a date on what is no charge": (
        ("UPDATE ledger_entries SET roll_date = '2026-11-25' WHERE user_id = %(late)s AND entry_type = 'deposit'",),
        "I2",
        "a roll date without financing",
    ),
    "a charge that nobody was told": (
        (f"UPDATE events SET payload = payload #- '{{financing,0}}' WHERE {TOLD}",),
        "I3",
        "the events tell otherwise of its financing of 2026-11-25",
    ),
    "a charge told as another amount": (
        (f"UPDATE events SET payload = jsonb_set(payload, '{{financing,0,amount}}', '-1') WHERE {TOLD}",),
        "I3",
        "the events tell otherwise of its financing of 2026-11-25",
    ),
    "a charge told in two parts": (
        (
            "UPDATE events SET payload = jsonb_set(payload, '{financing}', payload -> 'financing' || "
            f"jsonb_set(payload -> 'financing' -> 0, '{{amount}}', '0')) WHERE {TOLD}",
        ),
        "I3",
        "the events tell otherwise of its financing of 2026-11-25",
    ),
    "a charge told that was not": (
        (
            "UPDATE events SET event_type = 'account.financing', payload = payload || jsonb_build_object('financing', "
            "jsonb_build_array(jsonb_build_object('position_id', uuidv7(), 'roll_date', '2026-11-25', 'amount', 1))) "
            "WHERE user_id = %(late)s AND sequence = 2",
        ),
        "I3",
        "the events tell otherwise of its financing of 2026-11-25",
    ),
}


def test_books_in_order(world: World) -> None:
    assert world.market.book_faults() == []


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_each_thing_that_is_wrong_is_found(world: World, mutation: str) -> None:
    statements, invariant, problem = MUTATIONS[mutation]

    with world.market.owner.transaction(force_rollback=True):
        world.market.execute("DROP INDEX ledger_entries_financing")
        with tampered(world.market, *statements, **world.users):
            faults = world.market.book_faults()

    assert any(broken == invariant and problem in said for broken, _, said in faults), faults
    assert world.market.book_faults() == []
