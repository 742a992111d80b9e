"""Which provider a venue has, by configuration; one connection a venue for each execution environment."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial

from trading.brokers.protocol import Broker
from trading.settings import ConfigurationError, settings
from trading.store.connection import database
from trading.store.venues import DatabaseBook, venue_market

type Provider = Callable[[str], Broker]


@lru_cache
def broker(venue: str) -> Broker:
    """The connected broker of `venue`. ConfigurationError for one that VENUES does not name or may not be used here."""
    provider = settings().venues.get(venue)
    if provider is None:
        raise ConfigurationError(f"the environment is wrong: VENUES does not name the venue {venue}")
    made = _PROVIDERS[provider](venue)
    made.connect()
    return made


def _paper(venue: str) -> Broker:
    from trading.brokers.paper import PaperBroker

    return PaperBroker(venue, DatabaseBook(database(), venue), partial(venue_market, database()), _now)


def _mock(venue: str) -> Broker:
    from trading.brokers.mock import MockBroker, MockTerms

    terms = MockTerms(
        latency_seconds=settings().mock_latency_ms / 1000,
        failure_rate=Decimal(settings().mock_failure_percent) / 100,
        timeout_seconds=settings().venue_timeout_ms / 1000,
    )
    book = DatabaseBook(database(), venue)
    return MockBroker(venue, book, partial(venue_market, database()), _now, terms, time.sleep)


def _now() -> datetime:
    return datetime.now(UTC)


_PROVIDERS: dict[str, Provider] = {"paper": _paper, "mock": _mock}
