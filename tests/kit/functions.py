"""A function's handler called in the test's own process, as API Gateway would call it."""

import functools
import importlib.util
import itertools
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest

from tests.kit.builders import User, order_body
from tests.kit.openapi import check_answer
from tests.kit.servers import ScratchDatabase

ROOT = Path(__file__).parents[2]
JWT_SECRET = "a key of the tests, of more than 32 bytes"
CSRF_SECRET = "another key of the tests, also long enough"
ISSUER = "https://issuer.test"
AUDIENCE = "trading-api"
API_CLIENT = "test-client"
SOURCE_IP = "203.0.113.7"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Context:
    """What Lambda hands to a handler beside the event."""

    function_name: str = "function-under-test"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-west-1:123456789012:function:function-under-test"
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    time_left_ms: int = 10_000

    def get_remaining_time_in_millis(self) -> int:
        return self.time_left_ms


@dataclass(frozen=True)
class Answer:
    """An answer of API Gateway; header names as they were sent."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text, parse_float=Decimal)


@contextmanager
def function_environment(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    database: ScratchDatabase | None = None,
    redis_url: str | None = None,
    role: str = "function_trader",
    **overrides: str,
) -> Iterator[None]:
    """The environment that the template gives a function; what is cached from another one is dropped on both sides."""
    database_url = database.url_for(role) if database else None
    for name, value in (function_variables(folder, database_url, redis_url) | overrides).items():
        monkeypatch.setenv(name, value)
    forget()
    try:
        yield
    finally:
        forget()


def function_variables(folder: Path, database_url: str | None, redis_url: str | None) -> dict[str, str]:
    """What a function reads from its environment; its secrets are written into `folder`."""
    return {
        "STAGE": "local",
        # A name of its own, because a logger of the same name keeps writing to the output of the test before.
        "POWERTOOLS_SERVICE_NAME": f"test-{next(_numbers)}",
        "POWERTOOLS_METRICS_NAMESPACE": "Trading",
        "JWT_ALGORITHM": "HS256",
        "JWT_ISSUER": ISSUER,
        "JWT_AUDIENCE": AUDIENCE,
        "API_CLIENT_IDS": API_CLIENT,
        "ALLOW_UNMETERED_TIER": "true",
        "REDIS_TIMEOUT_MS": "1000",
        "JWT_SECRET": _secret(folder, "jwt", JWT_SECRET),
        "CSRF_SECRET": _secret(folder, "csrf", CSRF_SECRET),
        # Ports that nothing listens at: a store that a test does not give is one that is gone.
        "DATABASE_SECRET": _secret(folder, "database", database_url or "postgresql://nobody@127.0.0.1:9/none"),
        "REDIS_SECRET": _secret(folder, "redis", redis_url or "redis://127.0.0.1:9/0"),
    }


def forget() -> None:
    """Close and drop what the layer keeps for an execution environment, as a new one would start."""
    from trading import cache, database_silence, observability, secrets, settings
    from trading.edge import gate, visitors
    from trading.store import connection, instruments

    if connection.database.cache_info().currsize:
        connection.database().close()
    if cache.cache.cache_info().currsize:
        cache.cache().close()
    for kept in (
        connection.database,
        cache.cache,
        gate.authenticator,
        gate.limiter,
        visitors.guard,
        database_silence.outage_memory,
        instruments.instrument_catalogue,
        settings.settings,
        observability.logger,
        observability.metrics,
    ):
        kept.cache_clear()
    secrets.forget_secrets()


def load_function(name: str) -> Callable[[dict[str, Any], Any], Any]:
    """The handler of functions/`name`/app.py, of a fresh copy of the module; its HTTP answers are held to the API."""
    handler = deployed_handler(name)

    @functools.wraps(handler)
    def checked(event: dict[str, Any], context: Any) -> Any:
        answer = handler(event, context)
        if "http" in event.get("requestContext", {}):
            headers = {header.lower(): value for header, value in answer["headers"].items()}
            method, _, path = event["routeKey"].partition(" ")
            check_answer(method, path, answer["statusCode"], headers, answer["body"])
        return answer

    return checked


def deployed_handler(name: str) -> Callable[[dict[str, Any], Any], Any]:
    """The handler itself, as Lambda finds it."""
    path = ROOT / "functions" / name / "app.py"
    spec = importlib.util.spec_from_file_location(f"function_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.handler


def http_event(
    route_key: str,
    *,
    path: str | None = None,
    path_parameters: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    source_ip: str = SOURCE_IP,
) -> dict[str, Any]:
    """An event of payload 2.0. Without `path` it is the route's, with its parameters filled in."""
    method, _, template = route_key.partition(" ")
    path = path or template.format_map(dict(path_parameters or {}))
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": "",
        "headers": dict(headers or {}),
        "requestContext": {
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": source_ip,
                "userAgent": "tests",
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": route_key,
            "stage": "$default",
            "timeEpoch": int(time.time() * 1000),
        },
        "isBase64Encoded": False,
    }
    if path_parameters:
        event["pathParameters"] = dict(path_parameters)
    if query:
        event["queryStringParameters"] = dict(query)
    if body is not None:
        event["body"] = body
    return event


def call(handler: Callable[[dict[str, Any], Any], Any], event: dict[str, Any]) -> Answer:
    """The answer of `handler` to `event`."""
    raw = handler(event, Context())
    return Answer(raw["statusCode"], raw["headers"], raw["body"])


def claims_of(user: User | UUID | None = None, **overrides: Any) -> dict[str, Any]:
    """The claims of a gold trader's API-client token that is good for ten minutes; None removes a claim."""
    now = int(time.time())
    user_id = user.user_id if isinstance(user, User) else user or uuid.uuid4()
    claims: dict[str, Any] = {
        "sub": str(user_id),
        "email": user.email if isinstance(user, User) else "somebody@example.com",
        "role": "trader",
        "tier": "gold",
        "permissions": ["orders:read", "orders:write", "positions:read", "account:read"],
        "iat": now,
        "exp": now + 600,
        "aud": AUDIENCE,
        "iss": ISSUER,
        "client_id": API_CLIENT,
    }
    return {name: value for name, value in (claims | overrides).items() if value is not None}


def make_token(user: User | UUID | None = None, **overrides: Any) -> str:
    """A signed token with `claims_of`."""
    return jwt.encode(claims_of(user, **overrides), JWT_SECRET, algorithm="HS256")


def bearer(token: str) -> dict[str, str]:
    """The header that carries `token`."""
    return {"authorization": f"Bearer {token}"}


def order_event(user: User, *, route_key: str = "POST /functions/v1/execute-order", **fields: object) -> dict[str, Any]:
    """An order of `user` as API Gateway hands it over: 0.1 lots of EURUSD bought, under a key of its own."""
    return http_event(route_key, headers=bearer(make_token(user)), body=json.dumps(order_body(**fields)))


def _secret(folder: Path, name: str, text: str) -> str:
    path = folder / f"secret-{name}"
    path.write_text(text)
    path.chmod(0o600)
    return f"file:{path}"
