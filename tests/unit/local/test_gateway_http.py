"""Routes, CORS and response headers, without a server."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from local.gateway.cors import preflight, response_headers
from local.gateway.http_api import read_body
from local.gateway.http_events import decode, response_of
from local.gateway.invocations import Kind, Outcome, error_body
from local.gateway.routes import RouteTable
from local.gateway.stack import Cors, HttpRoute

KEYS = ["GET /a", "ANY /a", "GET /a/{id}", "GET /a/{id}/b", "POST /a/{id}", "ANY /{all+}", "GET /a.b/{x}"]


@pytest.mark.parametrize(
    ("method", "path", "key", "parameters"),
    [
        ("GET", "/a", "GET /a", {}),
        ("PUT", "/a", "ANY /a", {}),
        ("GET", "/a/1", "GET /a/{id}", {"id": "1"}),
        ("POST", "/a/1", "POST /a/{id}", {"id": "1"}),
        ("GET", "/a/1/b", "GET /a/{id}/b", {"id": "1"}),
        ("GET", "/a/", "ANY /{all+}", {"all": "a/"}),
        ("GET", "/axb/1", "ANY /{all+}", {"all": "axb/1"}),
    ],
)
def test_routes_by_their_rank(method: str, path: str, key: str, parameters: dict[str, str]) -> None:
    table = RouteTable([HttpRoute(key, "F", 29) for key in KEYS])

    found = table.match(method, path)

    assert found is not None
    assert (found[0].key, dict(found[1])) == (key, parameters)


def test_the_default_route_takes_the_rest() -> None:
    table = RouteTable([HttpRoute("GET /a", "F", 29), HttpRoute("$default", "F", 29)])

    assert [table.match("GET", path)[0].key for path in ("/a", "/b")] == ["GET /a", "$default"]  # type: ignore[index]
    assert RouteTable([HttpRoute("GET /a", "F", 29)]).match("GET", "/b") is None


@pytest.mark.parametrize(
    ("origins", "origin", "answer"),
    [
        (("https://a",), "https://a", b"https://a"),
        (("https://a",), "https://b", None),
        (("https://*",), "https://b", b"https://b"),
        (("https://*",), "http://b", None),
        (("*",), "https://b", b"*"),
    ],
)
def test_an_origin_is_allowed_or_not(origins: tuple[str, ...], origin: str, answer: bytes | None) -> None:
    cors = Cors(origins, ("GET",), ("X-A",), ("X-B",), 5, credentials=False)

    headers = dict(response_headers(cors, {"origin": origin}))

    assert headers.get(b"access-control-allow-origin") == answer


def test_a_preflight_is_one_only_with_both_headers() -> None:
    cors = Cors(("*",), (), (), (), None, credentials=True)
    both = {"origin": "https://a", "access-control-request-method": "GET"}

    assert preflight(cors, "OPTIONS", both) == [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-credentials", b"true"),
    ]
    assert preflight(cors, "GET", both) is None
    assert preflight(cors, "OPTIONS", {"origin": "https://a"}) is None


@pytest.mark.parametrize(
    ("kind", "status"),
    [(Kind.FAILED, 500), (Kind.DIED, 502), (Kind.NO_ROOM, 503), (Kind.TIMED_OUT, 504)],
)
def test_an_outcome_has_its_status(kind: Kind, status: int) -> None:
    body = error_body("X", "RequestId: 1 Error: Task timed out after 1.00 seconds")

    assert response_of(Outcome(kind, body)).status == status


@pytest.mark.parametrize("text", [b"NaN", b'{"a": Infinity}', b"[-Infinity]", b"{", b"\xff"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|utf-8"):
        decode(text)


def test_a_length_that_the_function_sets_is_not_believed() -> None:
    outcome = Outcome(
        Kind.ANSWERED, b'{"statusCode":200,"body":"abc","headers":{"Content-Length":"99","Connection":"x"}}'
    )

    assert response_of(outcome).headers == [(b"content-type", b"text/plain;charset=utf-8")]


@pytest.mark.parametrize(
    ("last", "body"),
    [({"type": "http.request", "body": b"b"}, b"ab"), ({"type": "http.disconnect"}, None)],
    ids=["complete", "cut off"],
)
def test_a_body_is_whole_or_none(last: dict[str, Any], body: bytes | None) -> None:
    # given a request whose sender goes on, or dies, after the first part
    messages = iter([{"type": "http.request", "body": b"a", "more_body": True}, last])

    async def receive() -> MutableMapping[str, Any]:
        return next(messages)

    # when it is read, then half a body is none
    assert asyncio.run(read_body({"content-length": "2"}, receive, 10)) == body
