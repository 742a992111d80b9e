"""What reading costs with 100,000 orders in the database: a page of orders, an audit, and the judging of an order.

Prints each read's median and 95th percentile in milliseconds against a look-up of one account row, measured in the same
rounds, and the plan of a page of orders. The aims are those of a trader's requests: judging an order below 100 ms, a
page of orders below 200 ms, 1,000 rows of audit below 500 ms.
"""

import statistics
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.market import make_accounts, prepared_market
from benchmarks.order_procedure import order_of
from database.run_query import run_query
from tests.kit.builders import User
from tests.kit.servers import ScratchDatabase

ORDERS = 100_000
TRADERS = 1_000
# Of one trader, so that a busy one is among them.
BUSY_ORDERS = 10_000
AUDIT_ROWS_AN_ORDER = 4
REPEATS = 30
REFERENCE = "one account row"
AIMS_MS = {"an order judged and denied": 100, "a page of 100 orders": 200, "1,000 rows of audit": 500}

type Read = Callable[[], object]


def fill(database: ScratchDatabase, users: list[User], orders: int) -> None:
    """`orders` executed orders with their rows of the audit, spread over `users`, the first of them busy."""
    busy = min(BUSY_ORDERS, orders // 10)
    with database.connect() as owner:
        owner.execute(
            """
            INSERT INTO orders (
                user_id, account_id, symbol, order_type, side, quantity, leaves_quantity, status, filled_quantity,
                average_price, executed_at, created_at
            )
            SELECT
                (%(users)s::uuid [])[place], (%(accounts)s::uuid [])[place], 'EURUSD', 'market', 'buy', 1, 0, 'filled',
                1, 1.1, clock_timestamp(), clock_timestamp()
            FROM generate_series(1, %(orders)s) AS n
            CROSS JOIN LATERAL (
                SELECT CASE WHEN n <= %(busy)s THEN 1 ELSE n %% cardinality(%(users)s) + 1 END AS place
            ) AS p
            """,
            {
                "users": [user.user_id for user in users],
                "accounts": [user.account_id for user in users],
                "orders": orders,
                "busy": busy,
            },
        )
        owner.execute(
            """
            INSERT INTO order_audit_log (
                user_id, account_id, version, order_id, action, status, details, previous_hash, hash, hash_version,
                created_at
            )
            SELECT
                o.user_id, o.account_id, 1000 + row_number() OVER (PARTITION BY o.account_id ORDER BY o.id, s.place),
                o.id, s.action, s.status, jsonb_build_object('symbol', o.symbol, 'quantity', o.quantity), '', '', 1,
                o.created_at
            FROM orders AS o
            CROSS JOIN (
                VALUES (1, 'SUBMITTED', 'pending_new'), (2, 'APPROVED', 'pending_new'),
                (3, 'EXECUTED', 'pending_new'), (4, 'FILLED', 'filled')
            ) AS s (place, action, status)
            """
        )
        # Limits that are counted and do not bind, and no leverage: an order passes every check but the last.
        owner.execute(
            "UPDATE risk_settings SET max_position_size = 1e9, max_positions = 1e6, daily_trade_limit = 1e6, "
            "max_daily_loss = 1e9 WHERE account_id = %s",
            (users[0].account_id,),
        )
        owner.execute("UPDATE accounts SET leverage = 1 WHERE id = %s", (users[0].account_id,))
        owner.execute("VACUUM ANALYZE orders, order_audit_log")


def reads(trader: psycopg.Connection[Any], auditor: psycopg.Connection[Any], busy: User) -> Mapping[str, Read]:
    """What is measured: as the roles that read it, of the busy trader."""
    user_id, account_id = busy.user_id, busy.account_id
    first = trader.execute("SELECT list_orders(%s, NULL, NULL, NULL, 100)", (user_id,)).fetchall()[0][0]
    order_ids = [order["id"] for order in first["orders"]]

    def judged() -> object:
        order = order_of(busy, str(uuid.uuid4())) | {"quantity": "1000"}
        answer = trader.execute("SELECT execute_order_atomic(%s)", (Jsonb(order),)).fetchall()[0][0]["answer"]
        assert answer["code"] == "INSUFFICIENT_MARGIN", answer
        return answer

    def page() -> object:
        return trader.execute("SELECT list_orders(%s, NULL, NULL, NULL, 100)", (user_id,)).fetchall()

    def audits() -> object:
        return [
            trader.execute("SELECT get_order_audit(%s, %s)", (user_id, order_id)).fetchall()
            for order_id in order_ids[: 1000 // AUDIT_ROWS_AN_ORDER]
        ]

    def audit() -> object:
        rows = auditor.execute(
            "SELECT action, status, reason, details, created_at FROM order_audit_log WHERE user_id = %s "
            "AND account_id = %s ORDER BY version DESC LIMIT 1000",
            (user_id, account_id),
        ).fetchall()
        assert len(rows) == 1000
        return rows

    return {
        REFERENCE: lambda: auditor.execute(
            "SELECT * FROM accounts WHERE user_id = %s AND id = %s", (user_id, account_id)
        ).fetchall(),
        "an order judged and denied": judged,
        "a page of 100 orders": page,
        f"the audits of {len(order_ids)} orders": audits,
        "1,000 rows of audit": audit,
    }


def measure(given: Mapping[str, Read], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call, all reads in every round."""
    taken: dict[str, list[float]] = {name: [] for name in given}
    for read in given.values():
        read()  # so that plans are made and pages are in memory
    for _ in range(rounds):
        for name, read in given.items():
            for _ in range(repeats):
                started = time.perf_counter()
                read()
                taken[name].append((time.perf_counter() - started) * 1000)
    return taken


def report(taken: Mapping[str, list[float]]) -> None:
    """Print a line a read."""
    base = statistics.median(taken[REFERENCE])
    print(f"  {'read':<30}{'median ms':>10}{'p95 ms':>9}{'ratio':>8}   aim")
    for name, milliseconds in taken.items():
        median, p95 = statistics.median(milliseconds), statistics.quantiles(milliseconds, n=20)[-1]
        aim = f"p95 below {AIMS_MS[name]} ms: {'met' if p95 < AIMS_MS[name] else 'MISSED'}" if name in AIMS_MS else "-"
        print(f"  {name:<30}{median:>10.2f}{p95:>9.2f}{median / base:>8.1f}   {aim}")


def run(rounds: int, _seconds: float) -> None:
    """Measure and print; reads are repeated a number of times and not for a time."""
    with prepared_market() as market:
        with market.database.connect() as owner:
            users = make_accounts(owner, TRADERS)
        fill(market.database, users, ORDERS)
        with market.database.connect("function_trader") as trader, market.database.connect("compliance") as auditor:
            print(f"\n{ORDERS:,} orders, {ORDERS * AUDIT_ROWS_AN_ORDER:,} rows of audit, {rounds} rounds")
            report(measure(reads(trader, auditor, users[0]), rounds, REPEATS))
            show_plans(auditor, users[0])


def show_plans(auditor: psycopg.Connection[Any], busy: User) -> None:
    """Print how the database finds a page of orders and of audit."""
    plan, _ = run_query(auditor, "query_analysis", {"email": busy.email})
    audit = auditor.execute(
        "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM order_audit_log WHERE user_id = %s AND account_id = %s "
        "ORDER BY version DESC LIMIT 1000",
        (busy.user_id, busy.account_id),
    ).fetchall()
    for title, rows in (("The last 50 orders", plan.rows), ("1,000 rows of audit", audit)):
        print(f"\n  {title}")
        for (line,) in rows:
            print(f"    {line}")
