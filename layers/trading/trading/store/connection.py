"""The database of this execution environment."""

from functools import lru_cache

from trading.secrets import database_url
from trading.settings import settings
from trading.store.database import Database


@lru_cache(maxsize=1)
def database() -> Database:
    """The one connection that all procedures of this function are called on, opened at the first call."""
    return Database(database_url, settings().database_timeout_ms / 1000)
