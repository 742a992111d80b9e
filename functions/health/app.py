"""Whether the system can take orders: database, Redis, prices, and the way to the traders' WebSockets."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from trading.cache import cache
from trading.edge.envelope import timestamp
from trading.edge.gate import admit_address
from trading.edge.http import Request, Response, http_handler
from trading.errors import ErrorCode, TradingError
from trading.health import UnhealthyError, judge_prices, run_checks
from trading.settings import required, settings
from trading.sockets import connections_client
from trading.store.connection import database
from trading.store.reading import probe_health

STARTED_AT = time.monotonic()
# In the form of a connection id, and nobody's.
NO_CONNECTION = "AAAAAAAAAAAAAAA="


def get_health(request: Request) -> Response:
    """GET /health: 200 when every check is ok, else 503."""
    feed = _feed(request)
    checks = run_checks(
        {
            "database": lambda: _check_database(feed),
            "redis": _check_redis,
            "external_apis": lambda: judge_prices(feed()),
            "websocket": _check_websocket,
        }
    )
    healthy = all(check.status == "ok" for check in checks.values())
    body = {
        "status": "ok" if healthy else "error",
        "timestamp": timestamp(datetime.now(UTC)),
        "uptime": round(time.monotonic() - STARTED_AT),
        "version": settings().version,
        "environment": settings().stage,
        "checks": {name: check.as_body() for name, check in checks.items()},
    }
    return Response(200 if healthy else 503, body, bare=True)


def get_liveness(request: Request) -> Response:
    """GET /api/v1/health and /api/health: that this API answers, nothing behind it looked at."""
    admit_address(request)
    return Response(body={"status": "ok", "timestamp": timestamp(datetime.now(UTC))})


def _feed(request: Request) -> Callable[[], dict[str, int | None]]:
    """How the feed stands, asked for once whichever check comes first.

    The address is counted first. When not even that can be done, the database is known to be gone: the answer is to
    say so, and another attempt to connect would outlast this function's time.
    """
    known: list[dict[str, int | None] | TradingError] = []
    try:
        admit_address(request)
    except TradingError as error:
        if error.code is not ErrorCode.DATABASE_UNAVAILABLE:
            raise
        known.append(error)

    def feed() -> dict[str, int | None]:
        if not known:
            try:
                known.append(probe_health(database()))
            except TradingError as error:
                known.append(error)
        if isinstance(known[0], TradingError):
            raise UnhealthyError("The database does not answer.") from known[0]
        return known[0]

    return feed


def _check_database(feed: Callable[[], dict[str, int | None]]) -> str:
    feed()
    return "The database answers."


def _check_redis() -> str:
    cache().run(lambda client: client.ping())
    return "Redis answers."


def _check_websocket() -> str:
    """Ask for a connection that nobody has: that it is gone is the right answer of a sound endpoint."""
    client = _connections()
    try:
        client.get_connection(ConnectionId=NO_CONNECTION)
    except client.exceptions.GoneException:
        return "The connections endpoint answers."
    raise UnhealthyError("The connections endpoint knows a connection that does not exist.")


@lru_cache(maxsize=1)
def _connections() -> Any:
    return connections_client(required(settings().connections_endpoint, "CONNECTIONS_ENDPOINT"))


handler = http_handler({"GET /health": get_health, "GET /api/v1/health": get_liveness, "GET /api/health": get_liveness})
