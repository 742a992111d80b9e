"""Check that the books are in order: `python -m database.verify audit|books` with DATABASE_URL.

Prints one line a fault and exits 1 when there are any.
"""

import os
import sys

import psycopg

FAULTS_SHOWN_MAX = 20


def audit_faults(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """Where the audit's hash chains are broken, the first row of each chain first."""
    rows = connection.execute("SELECT chain, version, audit_id, problem FROM verify_audit()").fetchall()
    return [f"chain {chain}, row {version} ({audit_id}): {problem}" for chain, version, audit_id, problem in rows]


def book_faults(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """What breaks the invariants of orders, fills, positions, ledger, audit and events."""
    rows = connection.execute("SELECT invariant, account_id, subject, problem FROM verify_books()").fetchall()
    return [f"{invariant} account {account}, {subject}: {problem}" for invariant, account, subject, problem in rows]


def main(arguments: list[str], url: str | None = None) -> int:
    """Entry of the command; `url` instead of DATABASE_URL for a caller that knows it."""
    checks = {"audit": ("The audit", audit_faults), "books": ("The books", book_faults)}
    if len(arguments) != 1 or arguments[0] not in checks:
        print("usage: python -m database.verify audit|books", file=sys.stderr)
        return 2
    name, check = checks[arguments[0]]
    with psycopg.connect(url or os.environ["DATABASE_URL"], autocommit=True) as connection:
        faults = check(connection)
    for fault in faults[:FAULTS_SHOWN_MAX]:
        print(fault)
    if faults:
        print(f"{name} are broken: {len(faults)} faults." if name.endswith("s") else f"{name} is broken.")
        return 1
    print(f"{name} hold." if name.endswith("s") else f"{name} holds.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
