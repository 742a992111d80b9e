"""The idempotency keys that have had their time."""

from trading.store.database import Database

PURGED_KEYS_MAX = 5_000


def purge_expired_keys(database: Database) -> int:
    """Remove expired idempotency keys, at most PURGED_KEYS_MAX a call; how many went."""
    answer = database.call("purge_expired_keys", {"version": 1, "limit": PURGED_KEYS_MAX})
    return int(answer["purged"])
