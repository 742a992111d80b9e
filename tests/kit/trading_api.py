"""The trader's HTTP API on a market, called in the test's own process."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.kit.builders import User
from tests.kit.functions import Answer, bearer, call, http_event, make_token
from tests.kit.orders import Market

PLACING = frozenset(
    {
        "POST /functions/v1/execute-order",
        "POST /api/v1/orders",
        *(f"POST /api/v1/orders/{kind}" for kind in ("oco", "oto", "bracket")),
    }
)

type Handler = Callable[[dict[str, Any], Any], Any]


@dataclass(frozen=True)
class TradingApi:
    """The function that places orders and the one that does the rest, on a database of the module's own."""

    market: Market
    placing: Handler
    managing: Handler

    def ask(
        self,
        route: str,
        user: User,
        body: object = None,
        *,
        subject: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **claims: Any,
    ) -> Answer:
        """What `route` answers `user`. `subject` is the id in its path; a `body` that is text goes as it is."""
        event = http_event(
            route,
            path_parameters={"id": str(subject)} if subject else None,
            query=query,
            headers={**bearer(make_token(user, **({"tier": "unmetered"} | claims))), **(headers or {})},
            body=body if body is None or isinstance(body, str) else json.dumps(body),
        )
        return call(self.placing if route in PLACING else self.managing, event)
