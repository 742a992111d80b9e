"""Who is let in, and what becomes of requests that mean harm. Each is answered; none leaks, none is a fault of ours."""

import base64
import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest

from local.environment import API_CLIENT_ID, JWT_AUDIENCE, JWT_ISSUER
from tests.kit.local_system import LocalSystem
from tests.kit.traders import EXECUTE_ORDER, Trader, Traders, error_of, exact
from trading.edge.body import BODY_BYTES_MAX
from trading.edge.security_headers import SECURITY_HEADERS
from trading.json_body import DEPTH_MAX

UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ORIGIN = "http://localhost:3000"
BRONZE_LIMIT = 10


# --- whose order it is -------------------------------------------------------------------------------------------


def test_an_order_is_shown_to_its_trader_and_its_audit_to_compliance(traders: Traders) -> None:
    # given an order of one trader
    owner, stranger = traders.new(), traders.new()
    order_id = exact(owner.order())["data"]["order_id"]
    address = f"/api/v1/orders/{order_id}"
    # when another asks for it, then it does not exist, in the words for one that never did
    for path in (address, f"{address}/audit"):
        hidden = stranger.http.get(path)
        invented = str(uuid.uuid4())
        missing = stranger.http.get(path.replace(order_id, invented))
        assert hidden.status_code == missing.status_code == 404
        assert hidden.text.replace(order_id, invented) == missing.text
        assert exact(hidden)["error"] == "NOT_FOUND"
    assert stranger.read("/api/v1/orders")["data"] == []
    assert stranger.read("/api/v1/positions")["data"] == []
    # and nobody trades on another's account
    foreign = stranger.order(account_id=str(owner.account_id))
    assert (foreign.status_code, error_of(foreign)["code"]) == (404, "NOT_FOUND")
    assert owner.http.get("/api/v1/account", params={"account_id": str(stranger.account_id)}).status_code == 404
    # and compliance reads any audit, but no order
    compliance = traders.named("compliance@example.com")
    assert compliance.read(f"{address}/audit")["total"] == 4
    assert compliance.http.get(address).status_code == 404


# --- tokens ------------------------------------------------------------------------------------------------------


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(claims: dict[str, Any], _key: str) -> str:
    return f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(claims)}."


def signed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any], str], str]:
    return lambda claims, key: jwt.encode(change(claims), key, algorithm="HS256")


def of_another_key(claims: dict[str, Any], _key: str) -> str:
    return jwt.encode(claims, "a guessed key, long enough for HS256", algorithm="HS256")


def claiming_rs256(claims: dict[str, Any], key: str) -> str:
    """The header says RS256, the signature is an HMAC with our own key: the confusion of the two must not help."""
    content = f"{encoded({'alg': 'RS256', 'typ': 'JWT', 'kid': 'local'})}.{encoded(claims)}"
    signature = hmac.new(key.encode(), content.encode(), hashlib.sha256).digest()
    return f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def changed_after_signing(claims: dict[str, Any], key: str) -> str:
    header, _, signature = jwt.encode(claims, key, algorithm="HS256").split(".")
    return f"{header}.{encoded(claims | {'role': 'compliance'})}.{signature}"


FORGERIES: dict[str, Callable[[dict[str, Any], str], str]] = {
    "alg none": unsigned,
    "guessed key": of_another_key,
    "HMAC under an RS256 header": claiming_rs256,
    "changed after signing": changed_after_signing,
    "expired": signed(lambda claims: claims | {"exp": int(time.time()) - 1}),
    "not valid yet": signed(lambda claims: claims | {"nbf": int(time.time()) + 600}),
    "wrong audience": signed(lambda claims: claims | {"aud": "another-api"}),
    "wrong issuer": signed(lambda claims: claims | {"iss": "https://issuer.example"}),
    "unknown tier": signed(lambda claims: claims | {"tier": "diamond"}),
    "no expiry": signed(lambda claims: {name: value for name, value in claims.items() if name != "exp"}),
    "garbage": lambda _claims, _key: "garbage",
    "empty": lambda _claims, _key: "",
}


def claims_of(trader: Trader) -> dict[str, Any]:
    now = int(time.time())
    return {
        "sub": str(trader.user_id),
        "email": trader.email,
        "role": "trader",
        "tier": "unmetered",
        "permissions": ["orders:write", "account:read"],
        "iat": now,
        "exp": now + 600,
        "aud": JWT_AUDIENCE,
        "iss": JWT_ISSUER,
        "client_id": API_CLIENT_ID,
    }


def test_a_token_of_our_own_making_passes_and_every_forgery_is_refused(
    local_system: LocalSystem, traders: Traders
) -> None:
    # given the claims that a right token would have
    trader = traders.new()
    claims, key = claims_of(trader), local_system.state.secret("JwtSecret")
    right = jwt.encode(claims, key, algorithm="HS256")
    assert trader.http.get("/api/v1/account", headers={"Authorization": f"Bearer {right}"}).status_code == 200
    body = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": 1, "idempotency_key": "forged"}
    for name, forge in FORGERIES.items():
        # when a forged one comes, to read or to trade
        token = forge(claims, key)
        header = {"Authorization": f"Bearer {token}".strip()}
        for response in (
            trader.http.post(EXECUTE_ORDER, json=body, headers=header),
            trader.http.post("/api/v1/orders", json=body, headers=header),
            trader.http.get("/api/v1/account", headers=header),
        ):
            # then it is refused, and not repeated
            assert response.status_code == 401, (name, response.text)
            assert "UNAUTHENTICATED" in response.text
            assert not token or token not in response.text
    assert trader.rows("orders") == []


# --- cross-site requests -----------------------------------------------------------------------------------------


def test_a_browser_session_needs_its_own_csrf_token(traders: Traders) -> None:
    # given two sessions
    trader, csrf_token = traders.in_browser()
    _, another_csrf_token = traders.in_browser()

    def order_with(token: str | None, **fields: object) -> httpx.Response:
        trader.http.headers.pop("X-CSRF-Token", None)
        if token is not None:
            trader.http.headers["X-CSRF-Token"] = token
        return trader.order(**fields)

    forged = csrf_token[:-1] + ("0" if csrf_token[-1] != "0" else "1")
    for token in (None, "", "guess", forged, another_csrf_token):
        # when the session trades without a token of its own, then it is refused
        response = order_with(token)
        assert response.status_code == 403, (token, response.text)
        assert error_of(response)["code"] == "CSRF_FAILED"
        assert error_of(response)["details"]["field"] == "X-CSRF-Token"
    assert trader.rows("orders") == []
    # and it may read
    trader.http.headers.pop("X-CSRF-Token")
    assert trader.http.get("/api/v1/account").status_code == 200
    # when it shows its token, or one fetched newly, then it trades
    assert order_with(csrf_token).status_code == 200
    fetched = trader.read("/functions/v1/csrf-token")["data"]["csrf_token"]
    assert fetched != csrf_token
    assert order_with(fetched).status_code == 200


# --- limits ------------------------------------------------------------------------------------------------------


def test_the_eleventh_call_of_a_bronze_user_in_a_minute_is_refused(traders: Traders) -> None:
    # given a bronze user who has used the minute
    trader = traders.named("bronze@example.com")
    answers = [trader.order(quantity="0.01") for _ in range(BRONZE_LIMIT)]
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == [str(n) for n in reversed(range(10))]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {str(BRONZE_LIMIT)}
    # when the next call comes
    refused = trader.order(quantity="0.01")
    # then it is told when to come again
    assert refused.status_code == 429
    error = error_of(refused)
    assert error["code"] == "RATE_LIMIT_EXCEEDED"
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 60
    assert exact(refused)["context"]["retryAfter"] == wait
    assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"]) == ("10", "0")
    assert 0 < int(refused.headers["x-ratelimit-reset"]) - time.time() <= 61
    # and it is not counted, nor are reads counted with orders
    assert int(trader.order().headers["retry-after"]) <= wait
    assert trader.http.get("/api/v1/account").headers["x-ratelimit-remaining"] == "9"
    assert len(trader.rows("orders")) == BRONZE_LIMIT


# --- bodies ------------------------------------------------------------------------------------------------------


def order_text(**fields: str) -> str:
    """An order as JSON text; the values are JSON text already, so that they may be anything."""
    whole = {
        "symbol": '"EURUSD"',
        "order_type": '"market"',
        "side": '"buy"',
        "quantity": "0.1",
        "idempotency_key": '"bad-body"',
    } | fields
    return "{" + ",".join(f'"{name}":{value}' for name, value in whole.items()) + "}"


BAD_BODIES = {
    "nothing": "",
    "no JSON": "{symbol: EURUSD}",
    "cut off": order_text()[:-5],
    "a list": "[]",
    "null": "null",
    "a number": "1",
    "not UTF-8": b"\xff\xfe{}",
    "duplicate members": order_text()[:-1] + ',"quantity":0.2}',
    "deep nesting": order_text(metadata='{"a":' + "[" * 5000 + "]" * 5000 + "}"),
    "somewhat deep nesting": order_text(metadata='{"a":' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}"),
    "NUL": order_text(strategy_id='"a\\u0000b"'),
    "a lone surrogate": order_text(strategy_id='"\\ud800"'),
    "NaN": order_text(quantity="NaN"),
    "Infinity": order_text(quantity="Infinity"),
    "1e400": order_text(quantity="1e400"),
    "1e-400": order_text(quantity="1e-400"),
    "ten thousand digits": order_text(quantity="1" * 10_000),
}
BAD_VALUES = {
    "text NaN": ("quantity", '"NaN"'),
    "minus zero": ("quantity", "-0"),
    "minus zero point zero": ("quantity", "-0.0"),
    "zero": ("quantity", "0"),
    "negative": ("quantity", "-1"),
    "a comma": ("quantity", '"1,5"'),
    "text with an exponent": ("quantity", '"1e2"'),
    "Arabic digits": ("quantity", '"١"'),
    "true": ("quantity", "true"),
    "an object": ("quantity", '{"a":1}'),
    "between the steps": ("quantity", "0.015"),
    "too large": ("quantity", "1e17"),
    "null quantity": ("quantity", "null"),
    "a symbol in full-width letters": ("symbol", '"ＥＵＲＵＳＤ"'),
    "a symbol with a dotless i": ("symbol", '"eurusdı"'),
    "a symbol that is SQL": ("symbol", '"EURUSD\'; DROP TABLE orders; --"'),
    "a symbol that is a list": ("symbol", '["EURUSD"]'),
    "an unknown side": ("side", '"hold"'),
    "an unknown type": ("order_type", '"iceberg"'),
    "an empty key": ("idempotency_key", '""'),
    "an overlong key": ("idempotency_key", f'"{"k" * 256}"'),
    "a key that is a number": ("idempotency_key", "1"),
    "a price for a market order": ("price", "1.1"),
    "a stop loss above the price": ("stop_loss", "9"),
    "a stop loss between the ticks": ("stop_loss", "1.000001"),
    "a field that is not known": ("volume", "1"),
}


def test_a_body_that_cannot_be_read_is_refused_in_the_contracts_form(traders: Traders) -> None:
    trader = traders.new()
    for name, body in BAD_BODIES.items():
        # when
        response = trader.http.post(EXECUTE_ORDER, content=body, headers={"Content-Type": "application/json"})
        # then
        assert response.status_code == 400, (name, response.text)
        error = error_of(response)
        assert error["code"] == "VALIDATION_FAILED", name
        assert error["details"]["field"] == "body", (name, error)
        assert error["details"]["constraint"], name
    assert trader.rows("orders") == []


@pytest.mark.parametrize("path", [EXECUTE_ORDER, "/api/v1/orders"])
def test_a_value_that_does_not_fit_is_named(traders: Traders, path: str) -> None:
    trader = traders.new()
    for name, (field, value) in BAD_VALUES.items():
        if value == "null" and path != EXECUTE_ORDER:
            continue
        # when
        headers = {"Content-Type": "application/json"}
        response = trader.http.post(path, content=order_text(**{field: value}).encode(), headers=headers)
        # then the field is named, with what it has to be
        assert response.status_code == 400, (name, response.text)
        body = exact(response)
        error = body["error"] if path == EXECUTE_ORDER else body | {"code": body["error"]}
        assert error["code"] == "VALIDATION_FAILED", (name, error)
        assert error["details"]["field"] == field, (name, error)
        assert error["details"]["constraint"], (name, error)
    assert trader.rows("orders") == []


def test_a_time_that_utc_cannot_show_is_named(traders: Traders) -> None:
    # given an expiry that is in the year 10,000 where we are
    response = traders.new().order(time_in_force="gtd", expires_at="9999-12-31T23:59:59-23:59")
    # then it is refused like any other wrong value
    assert response.status_code == 400, response.text
    assert error_of(response)["details"]["field"] == "expires_at"


def test_a_symbol_that_is_not_traded_is_not_found(traders: Traders) -> None:
    response = traders.new().order(symbol="NOSUCH")
    assert response.status_code == 404
    error = error_of(response)
    assert (error["code"], error["details"]["field"], error["details"]["value"]) == (
        "UNKNOWN_SYMBOL",
        "symbol",
        "NOSUCH",
    )


def test_a_body_may_have_64_kilobytes(traders: Traders) -> None:
    # given bodies at the limit and one byte beyond
    trader = traders.new()
    fits = order_text().ljust(BODY_BYTES_MAX)
    # when
    accepted = trader.http.post(EXECUTE_ORDER, content=fits)
    refused = trader.http.post(EXECUTE_ORDER, content=fits + " ")
    # then
    assert accepted.status_code == 200, accepted.text
    assert refused.status_code == 413
    assert error_of(refused)["code"] == "PAYLOAD_TOO_LARGE"


# --- every answer ------------------------------------------------------------------------------------------------


def test_every_answer_of_a_function_carries_the_headers_and_the_request_id(traders: Traders) -> None:
    # given answers of every kind
    trader = traders.new()
    given = {"X-Request-ID": "trace-1:a.b_c"}
    nobody = {**given, "Authorization": "Bearer x"}
    answers = {
        200: trader.http.get("/api/v1/account", headers=given),
        201: trader.http.post(
            "/api/v1/orders", json={"symbol": "EURUSD", "order_type": "MARKET", "quantity": 1}, headers=given
        ),
        400: trader.http.post(EXECUTE_ORDER, content="{", headers=given),
        401: trader.http.get("/api/v1/account", headers=nobody),
        404: trader.http.get(f"/api/v1/orders/{uuid.uuid4()}", headers=given),
        413: trader.http.post(EXECUTE_ORDER, content=" " * (BODY_BYTES_MAX + 1), headers=given),
    }
    for status, answer in answers.items():
        # then each is safe to show, not kept, and named as the caller named it
        assert answer.status_code == status, answer.text
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)
        assert answer.headers["x-request-id"] == given["X-Request-ID"]
        assert answer.headers["content-type"] == "application/json"
    context = exact(answers[400])["context"]
    assert context["requestId"] == given["X-Request-ID"]
    assert context["executionTime"] >= 0
    # and a name that could break a log is replaced
    for bad in ("a b", "x" * 129, "<script>"):
        answer = trader.http.get("/api/v1/account", headers={"X-Request-ID": bad})
        assert UUID_TEXT.fullmatch(answer.headers["x-request-id"])


def test_the_request_id_goes_into_the_order_and_its_event(traders: Traders) -> None:
    # given
    trader = traders.new()
    trader.http.headers["X-Request-ID"] = "follow-me"
    # when
    response = trader.order()
    # then
    assert response.status_code == 200, response.text
    assert [row["request_id"] for row in trader.rows("orders", "request_id")] == ["follow-me"]
    assert trader.rows("events", "request_id", "sequence")[-1]["request_id"] == "follow-me"


def test_an_unknown_address_is_not_found(traders: Traders) -> None:
    trader = traders.new()
    for method, path in (("GET", "/nothing"), ("POST", "/api/v1/nothing"), ("DELETE", EXECUTE_ORDER)):
        assert trader.http.request(method, path).status_code == 404, (method, path)


def test_a_front_end_may_call_and_a_stranger_may_not(local_system: LocalSystem, traders: Traders) -> None:
    wanted = "authorization,content-type,x-csrf-token,x-request-id,idempotency-key"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    with httpx.Client(base_url=local_system.api_url, trust_env=False) as browser:
        # when a browser asks for our front end
        allowed = browser.options(EXECUTE_ORDER, headers=asked | {"Origin": ORIGIN})
        # then it may send what the contract needs
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert set(wanted.split(",")) <= set(allowed.headers["access-control-allow-headers"].split(","))
        assert "POST" in allowed.headers["access-control-allow-methods"]
        # and for a stranger, it may not
        refused = browser.options(EXECUTE_ORDER, headers=asked | {"Origin": "https://elsewhere.example"})
        assert "access-control-allow-origin" not in refused.headers
    # and our front end may read what an answer says beside its body
    answer = traders.new().http.get("/api/v1/account", headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = set(answer.headers["access-control-expose-headers"].split(","))
    assert {"retry-after", "x-ratelimit-remaining", "idempotency-replayed", "x-request-id"} <= exposed
