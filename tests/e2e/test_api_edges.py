"""Odd requests, one by one: headers, addresses, queries, methods and sizes. None is a fault of ours."""

import gzip
import json
import socket
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from local.demo_accounts import PERMISSIONS
from tests.kit.local_system import LocalSystem
from tests.kit.openapi import DOCUMENT, check_answer, operation_at, operations
from tests.kit.traders import EXECUTE_ORDER, Trader, Traders, error_of, exact
from trading.edge.body import BODY_BYTES_MAX
from trading.order_entry import KEY_CHARACTERS_MAX

ORDERS = "/api/v1/orders"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
ORDER = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": "0.1"}
HEADER_BYTES_MAX = 10_240


@pytest.fixture(scope="module")
def trader(all_traders: Traders) -> Iterator[Trader]:
    trader = all_traders.new()
    yield trader
    trader.close()


def an_order(**more: object) -> bytes:
    return json.dumps({**ORDER, "idempotency_key": str(uuid.uuid4()), **more}).encode()


def field_of(text: str) -> str:
    body = json.loads(text)
    return (body["error"] if "context" in body else body)["details"]["field"]


# --- numbers -----------------------------------------------------------------------------------------------------

ODD_NUMBERS = (
    '"1,5"',
    '"１２"',
    '"٣"',
    '"²"',
    '"0x10"',
    '"1_0"',
    '" 1"',
    '"+1"',
    '".5"',
    '"5."',
    '"-0"',
    "-0.0",
    '"1e1"',
    '"NaN"',
    '"Infinity"',
    '"' + "9" * 40 + '"',
    "9" * 40,
    "0." + "0" * 30 + "1",
    '"0.' + "0" * 30 + '1"',
    "1e32",
    "1e-32",
    '""',
    "[]",
    "[1]",
    "{}",
    "false",
)


@pytest.mark.parametrize("path", [EXECUTE_ORDER, ORDERS])
@pytest.mark.parametrize("field", ["quantity", "stop_loss", "max_slippage"])
def test_what_is_no_plain_number_is_refused_by_its_field(trader: Trader, path: str, field: str) -> None:
    for number in ODD_NUMBERS:
        if (field, number) == ("max_slippage", "-0.0"):
            continue  # zero, which it may be
        # when
        body = an_order(**{field: "HERE"}).replace(b'"HERE"', number.encode())
        response = trader.http.post(path, content=body)
        # then
        assert (response.status_code, field_of(response.text)) == (400, field), (number, response.text)


# --- addresses and queries ----------------------------------------------------------------------------------------

ODD_IDS = (
    "1",
    "null",
    "%20",
    "%00",
    "%0d%0aX-Evil:%201",
    "..%5c..%5chealth",
    "{01a1fc5d-1d64-7e88-9637-cfcbef0b90a9}",
    "urn:uuid:01a1fc5d-1d64-7e88-9637-cfcbef0b90a9",
    "01a1fc5d1d647e889637cfcbef0b90a9",
    "01a1fc5d-1d64-7e88-9637-cfcbef0b90a",
    "01a1fc5d-1d64-7e88-9637-cfcbef0b90a9a",
    "01a1fc5d-1d64-7e88-9637-cfcbef0b90ag",
    "01a1fc5d-1d64-7e88-9637-cfcbef0b90a9%00",
    "%D9%A3" * 36,
    "%F0%9F%92%B8",
    "%ff%fe",
    "' OR 1=1 --",
    "a" * 4000,
)


def test_an_id_that_is_none_is_refused_by_its_name(trader: Trader) -> None:
    mine = [each for each in operations() if each.operation["tags"] not in (["operators"], ["risk"])]
    paths = [each.path for each in mine if "{id}" in each.path and each.method == "get"]
    assert len(paths) >= 2
    for path in paths:
        for odd in ODD_IDS:
            # when
            response = trader.http.get(path.replace("{id}", odd))
            # then
            assert (response.status_code, field_of(response.text)) == (400, "id"), (path, odd, response.text)
            assert "x-evil" not in response.headers


def test_an_id_in_capitals_is_an_id(trader: Trader) -> None:
    order_id = exact(trader.order())["data"]["order_id"]
    assert trader.http.get(f"{ORDERS}/{order_id.upper()}").json()["id"] == order_id


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=+1", "limit"),
        ("limit=1.0", "limit"),
        ("limit=1e1", "limit"),
        ("limit=%EF%BC%91%EF%BC%92", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=1&limit=2", "limit"),
        ("limit=" + "9" * 4000, "limit"),
        ("cursor=1", "cursor"),
        ("cursor=%00", "cursor"),
        ("account_id=x", "account_id"),
        (
            "account_id=01a1fc5d-1d64-7e88-9637-cfcbef0b90a9&account_id=01a1fc5d-1d64-7e88-9637-cfcbef0b90a9",
            "account_id",
        ),
        ("status=OPEN", "status"),
        ("status=FILLED&status=OPEN", "status"),
        ("status=FILLED,,REJECTED", "status"),
        ("status=%00", "status"),
        ("status=" + "FILLED," * 500 + "x", "status"),
        ("status=%F0%9F%92%B8", "status"),
    ],
)
def test_a_query_that_does_not_fit_is_refused_by_its_parameter(trader: Trader, query: str, field: str) -> None:
    response = trader.http.get(f"{ORDERS}?{query}")
    assert (response.status_code, field_of(response.text)) == (400, field), response.text


@pytest.mark.parametrize(
    "query",
    [
        "",
        "status=",
        "limit=&cursor=&account_id=",
        "status=filled&status=REJECTED",
        "no_such_parameter=1",
        "=",
        "&&&",
        "%ff=%fe",
        "limit=007",
    ],
)
def test_a_parameter_that_is_empty_repeated_or_not_known_does_no_harm(trader: Trader, query: str) -> None:
    assert trader.http.get(f"{ORDERS}?{query}").status_code == 200


@pytest.mark.parametrize(
    "symbols",
    [
        "",
        ",",
        "EUR/USD",
        "ＥＵＲＵＳＤ",
        "%00",
        "a" * 21,
        ",".join(f"S{number}" for number in range(101)),
        "EURUSD;DROP",
    ],
)
def test_symbols_that_no_instrument_has_are_refused_by_their_parameter(trader: Trader, symbols: str) -> None:
    for path in ("/api/v1/prices", "/functions/v1/get-stock-price"):
        response = trader.http.get(f"{path}?symbols={symbols}")
        assert (response.status_code, field_of(response.text)) == (400, "symbols"), (path, response.text)


@pytest.mark.parametrize("named", ['{"symbol": 1}', '{"symbol": [[]]}', '{"symbols": [null]}', '{"symbols": {"a": 1}}'])
def test_symbols_of_another_kind_are_refused(trader: Trader, named: str) -> None:
    response = trader.http.post("/functions/v1/get-stock-price", content=named)
    assert (response.status_code, field_of(response.text)) == (400, next(iter(json.loads(named)))), response.text


# --- methods -----------------------------------------------------------------------------------------------------


def test_a_method_that_is_not_there_is_not_found(trader: Trader) -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method in METHODS:
            real = path.replace("{id}", str(uuid.uuid4()))
            # A word may be the id of another route.
            if method.lower() not in methods and operation_at(method, real) is None:
                # when
                response = trader.http.request(method, real)
                # then the gateway says so, and a HEAD says nothing
                told = "" if method == "HEAD" else '{"message": "Not Found"}'
                assert (response.status_code, response.text) == (404, told), (method, path)


@pytest.mark.parametrize(
    "path",
    ["/", "//", "/api/v1", "/api/v1/orders/", "/API/V1/ORDERS", "/api/v1/orders%2f", "/api/v1/orders/..%2f..%2fhealth"],
)
def test_an_address_that_is_nearly_right_is_not_found(trader: Trader, path: str) -> None:
    assert trader.http.get(path).status_code == 404


# --- bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/xml", "a", ""])
def test_a_body_is_read_as_json_whatever_it_is_called(trader: Trader, content_type: str) -> None:
    assert trader.http.post(EXECUTE_ORDER, content=an_order(), headers={"Content-Type": content_type}).is_success


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(an_order()), {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
        (b"symbol=EURUSD&quantity=1", {"Content-Type": "application/x-www-form-urlencoded"}),
        (an_order().decode().encode("utf-16"), {"Content-Type": "application/json; charset=utf-16"}),
        ("ü".encode("latin-1"), {"Content-Type": "application/json; charset=latin-1"}),
        (b"\xef\xbb\xbf" + an_order(), {"Content-Type": "application/json"}),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, {"Content-Type": "application/json"}),
        (b"[" * 60_000, {"Content-Type": "application/json"}),
        (b'"' + b"\\ud800" * 100 + b'"', {"Content-Type": "application/json"}),
    ],
)
def test_another_encoding_or_no_object_is_refused(trader: Trader, body: bytes, headers: dict[str, str]) -> None:
    for described in operations():
        needed = {word for choice in described.operation["security"] for word in choice["bearer"]}
        is_traders = "{" not in described.path and needed <= set(PERMISSIONS["trader"])
        if "requestBody" in described.operation and is_traders:
            response = trader.http.request(described.method, described.path, content=body, headers=headers)
            assert (response.status_code, field_of(response.text)) == (400, "body"), (described.path, response.text)


def test_a_get_with_a_body_is_answered_without_it(trader: Trader) -> None:
    response = trader.http.request("GET", "/api/v1/account", content=b'{"account_id": 1}')
    assert response.is_success, response.text


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream"])
def test_the_limit_of_a_body_is_in_bytes(trader: Trader, content_type: str) -> None:
    """As text, and as bytes that reach the function in base64."""
    # given a body that has as many bytes as it may, and fewer characters
    headers = {"Content-Type": content_type}
    whole = json.dumps(
        {**ORDER, "idempotency_key": str(uuid.uuid4()), "metadata": {"text": "é" * 500}}, ensure_ascii=False
    ).encode()
    fits = whole.ljust(BODY_BYTES_MAX)
    assert len(fits) == BODY_BYTES_MAX > len(fits.decode())
    # when
    accepted = trader.http.post(EXECUTE_ORDER, content=fits, headers=headers)
    refused = trader.http.post(EXECUTE_ORDER, content=fits + b" ", headers=headers)
    # then
    assert accepted.status_code == 200, accepted.text
    assert (refused.status_code, error_of(refused)["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert error_of(refused)["details"]["value"] == str(BODY_BYTES_MAX + 1)
    # and as many characters in more bytes are too many
    many = ('{"symbol": "' + "é" * (BODY_BYTES_MAX - 14) + '"}').encode()
    assert len(many.decode()) == BODY_BYTES_MAX
    assert trader.http.post(EXECUTE_ORDER, content=many, headers=headers).status_code == 413


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["", "a b", "a%0d%0aX-Evil: 1;", "é", "x" * 129, "x" * 9000, "${jndi:ldap://x}", "a\tb"]
)
def test_a_request_id_that_could_break_something_is_replaced(trader: Trader, given: str) -> None:
    response = trader.http.get("/api/v1/account", headers={b"X-Request-ID": given.encode("latin-1")})
    assert response.is_success
    assert str(uuid.UUID(response.headers["x-request-id"])) == response.headers["x-request-id"]
    assert "x-evil" not in response.headers


@pytest.mark.parametrize("given", ["a b", "é", "k" * (KEY_CHARACTERS_MAX + 1), "a\tb", "k" * 9000])
def test_a_key_in_the_header_that_is_none_is_refused(trader: Trader, given: str) -> None:
    headers = {b"Idempotency-Key": given.encode("latin-1")}
    for path in (EXECUTE_ORDER, ORDERS):
        response = trader.http.post(path, json=ORDER, headers=headers)
        assert (response.status_code, field_of(response.text)) == (400, "idempotency_key"), response.text


def test_a_key_that_looks_like_another_header_is_only_a_key(trader: Trader) -> None:
    # given
    key = f"{uuid.uuid4()}%0d%0aX-Evil:1"
    # when it is sent twice
    answers = [trader.http.post(ORDERS, json=ORDER, headers={"Idempotency-Key": key}) for _ in range(2)]
    # then
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert all("x-evil" not in answer.headers for answer in answers)


def test_two_keys_in_one_request_are_one_that_is_none(trader: Trader) -> None:
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    response = trader.http.post(EXECUTE_ORDER, json={**ORDER, "idempotency_key": "one"}, headers=headers)
    assert (response.status_code, field_of(response.text)) == (400, "idempotency_key"), response.text


def test_long_and_strange_headers_trade_as_others_do(trader: Trader) -> None:
    for agent in (b"a" * 9000, b"\xe9", b"\x80\xff", b"<script>", b"$(id)"):
        response = trader.http.post(EXECUTE_ORDER, content=an_order(), headers={b"User-Agent": agent})
        assert response.status_code == 200, (agent, response.text)
    for name in ("Authorization", "Cookie", "X-Forwarded-For", "X-Amzn-Trace-Id"):
        response = trader.http.get("/api/v1/account", headers={name.encode(): b"\xe9" * 5000})
        assert response.status_code == (401 if name == "Authorization" else 200), (name, response.text)


def test_more_headers_than_the_gateway_takes_are_refused_by_it(trader: Trader) -> None:
    response = trader.http.get("/api/v1/account", headers={"X-Long": "a" * HEADER_BYTES_MAX})
    assert response.status_code == 431


@pytest.mark.parametrize(
    "line", [b"X-Request-ID: a\x00b", b"X-Request-ID: a\rX-Evil: 1", b"X-Request-ID : a", b"\x00: 1"]
)
def test_bytes_that_no_header_may_have_never_reach_a_function(
    local_system: LocalSystem, trader: Trader, line: bytes
) -> None:
    address = urlsplit(local_system.api_url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as connection:
        bearer = f"Authorization: Bearer {trader.token}".encode()
        head = [b"GET /api/v1/account HTTP/1.1", b"Host: api", b"Connection: close", bearer, line]
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n")
        answer = connection.makefile("rb").read()
    status = int(answer.split(b" ", 2)[1])
    assert status == 400 or b"x-evil" not in answer.lower()
    if status != 400:
        fields, _, body = answer.partition(b"\r\n\r\n")
        pairs = [field.split(b": ", 1) for field in fields.split(b"\r\n")[1:]]
        headers = {name.decode().lower(): value.decode() for name, value in pairs}
        check_answer("GET", "/api/v1/account", status, headers, body.decode())
