"""Requests made from docs/api/openapi.json: some that fit it, some that do not, over a running system."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jsonschema_rs
import jwt
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core import NotSet
from schemathesis.core.parameters import ParameterLocation

from local.demo_accounts import UNMETERED
from local.environment import API_CLIENT_ID, JWT_AUDIENCE, JWT_ISSUER
from tests.kit.openapi import DOCUMENT, Described, operations
from tests.kit.traders import Trader

_SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
_CERTAIN = (ParameterLocation.PATH, ParameterLocation.BODY)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it goes out."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    content: bytes | None


def permissions() -> list[str]:
    """Every permission that the document names."""
    return sorted({word for each in operations() for choice in each.operation["security"] for word in choice["bearer"]})


def token_of(trader: Trader, **overrides: Any) -> str:
    """A token of the trader's user with every permission there is, as an API client that nothing limits."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": str(trader.user_id),
        "email": trader.email,
        "role": "operator",
        "tier": UNMETERED,
        "permissions": permissions(),
        "iat": now,
        "exp": now + 3600,
        "aud": JWT_AUDIENCE,
        "iss": JWT_ISSUER,
        "client_id": API_CLIENT_ID,
    }
    kept = {name: value for name, value in (claims | overrides).items() if value is not None}
    return jwt.encode(kept, trader.system.state.secret("JwtSecret"), algorithm="HS256")


def fitting(described: Described, real: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[Sent]:
    """Requests that fit the document; what is named as in `real` mostly has one of those values."""
    cases = _SCHEMA[described.path][described.method.upper()].as_strategy(generation_mode=GenerationMode.POSITIVE)
    return st.builds(
        _real, cases, st.fixed_dictionaries({name: st.sampled_from(values) for name, values in real.items()})
    )


def unfitting(described: Described) -> st.SearchStrategy[Sent] | None:
    """Requests whose path, query or body does not fit the document; None where everything fits."""
    operation = described.operation
    sent_in = {parameter.get("in") for parameter in operation["parameters"]}
    if not sent_in & {"path", "query"} and "requestBody" not in operation:
        return None
    cases = _SCHEMA[described.path][described.method.upper()].as_strategy(generation_mode=GenerationMode.NEGATIVE)
    return cases.filter(lambda case: _is_unfitting(described, case)).map(_sent)


def sample(described: Described, real: Mapping[str, Sequence[Any]]) -> Sent:
    """A request that is certain to pass: the document's own example, of ids that there are."""
    path = described.path.format_map({name: values[0] for name, values in real.items()})
    required = [each["name"] for each in described.operation["parameters"] if each.get("required")]
    query = tuple((name, real[name][0]) for name in required if f"{{{name}}}" not in described.path)
    body = described.operation.get("requestBody")
    content = None
    if body is not None:
        example = body["content"]["application/json"]["example"]
        known = {name: values[0] for name, values in real.items() if name in example and name.endswith("_id")}
        keyed = "idempotency_key" in example
        content = json.dumps(example | known | ({"idempotency_key": str(uuid.uuid4())} if keyed else {})).encode()
    return Sent(described.method.upper(), path, query, {}, content)


def send(client: httpx.Client, token: str | None, sent: Sent) -> httpx.Response:
    """The answer to a request, with a token or none."""
    headers = {**sent.headers, "Content-Type": "application/json"}
    client.headers.pop("Authorization", None)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return client.request(sent.method, sent.path, params=list(sent.query), headers=headers, content=sent.content)


def _real(case: Case, values: Mapping[str, Any]) -> Sent:
    # A part of a case may be the document's own example, which is not to be changed.
    for part in ("path_parameters", "query", "body"):
        held = getattr(case, part)
        if isinstance(held, dict):
            setattr(case, part, held | {name: values[name] for name in values if name in held})
    return _sent(case)


def _is_unfitting(described: Described, case: Case) -> bool:
    """Whether path, body or a parameter of the query is none that may be sent.

    Of the query this is seen here, because a parameter that is empty or not known counts as left out.
    """
    meta = case.meta
    assert meta is not None
    found = [meta.components[location] for location in _CERTAIN if location in meta.components]
    if any(component.mode is GenerationMode.NEGATIVE for component in found):
        return True
    schemas = {each["name"]: each["schema"] for each in described.operation["parameters"] if each.get("in") == "query"}
    given = [(name, text) for name, text in _sent(case).query if text and name in schemas]
    return any(not _fits(schemas[name], text) for name, text in given)


def _fits(schema: dict[str, Any], text: str) -> bool:
    value: Any = text
    if schema["type"] == "integer" and text.isdecimal():
        value = int(text)
    elif schema["type"] == "array":
        value = text.split(",")
    return jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value)


def _sent(case: Case) -> Sent:
    transport = case.as_transport_kwargs(base_url="http://api")
    headers = {name: value for name, value in case.headers.items() if value.isascii() and value.isprintable()}
    headers = {name: value for name, value in headers.items() if name in ("X-Request-ID", "Idempotency-Key")}
    return Sent(
        case.method.upper(),
        transport["url"].removeprefix("http://api"),
        _pairs(transport["params"]),
        headers,
        _content(case.body),
    )


def _pairs(params: str | Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The parameters of a query as texts, as one who sends them writes them."""
    if isinstance(params, str):
        return tuple(parse_qsl(params, keep_blank_values=True))
    return tuple((name, str(value)) for name, value in params.items() if value is not None)


def _content(body: object) -> bytes | None:
    """Bytes are a text that was damaged on purpose."""
    if isinstance(body, NotSet):
        return None
    return body if isinstance(body, bytes) else json.dumps(body).encode()
