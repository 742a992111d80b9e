"""The database's own table of an order's steps is the layer's."""

from tests.kit import MigratedTemplate
from trading.orders import TRANSITIONS


def test_the_tables_are_equal(migrated: MigratedTemplate) -> None:
    scratch = migrated.clone()
    try:
        with scratch.connect() as connection:
            kept = set(connection.execute("SELECT from_status, to_status FROM order_transitions").fetchall())
            words = connection.execute(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = 'order_status'::regtype"
            ).fetchall()[0][0]
    finally:
        scratch.drop()

    assert kept == {(status, following) for status, followings in TRANSITIONS.items() for following in followings}
    assert all(f"'{status}'" in words for status in TRANSITIONS if status != "initialized")
