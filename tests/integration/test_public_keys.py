"""Tokens of an issuer that publishes its keys, from the fetch over HTTP to the caller."""

import base64
import hmac
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.kit.functions import JWT_SECRET, Answer, bearer, call, claims_of, function_environment, http_event
from tests.kit.http_servers import Reply, http_server
from trading.edge.gate import admit
from trading.edge.http import Request, Response, http_handler
from trading.edge.signing_keys import BYTES_MAX, fetch_keys

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
JWKS = json.dumps(
    {"keys": [RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "k1", "use": "sig"}]}
).encode()


class Issuer:
    """An endpoint of keys that counts its visitors."""

    def __init__(self) -> None:
        self.fetches = 0
        self.reply = Reply(body=JWKS)

    def __call__(self, _path: str) -> Reply:
        self.fetches += 1
        return self.reply


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, folder: Path, redis_url: str, issuer: Issuer) -> Iterator[None]:
    with (
        http_server(issuer) as url,
        function_environment(
            monkeypatch, folder, redis_url=redis_url, JWT_ALGORITHM="RS256", JWT_JWKS_URL=f"{url}/jwks.json"
        ),
    ):
        yield


def knock(token: str) -> Answer:
    def route(request: Request) -> Response:
        caller = admit(request, route_group="orders", state_changing=True, permission="orders:write")
        return Response(body={"user_id": caller.user_id})

    return call(
        http_handler({"POST /functions/v1/door": route}), http_event("POST /functions/v1/door", headers=bearer(token))
    )


def signed(user_id: uuid.UUID, kid: str | None = "k1", key: rsa.RSAPrivateKey = KEY) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims_of(user_id), key, algorithm="RS256", headers=headers)


def test_a_token_of_the_issuer_is_verified_by_one_fetch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, issuer: Issuer
) -> None:
    users = [uuid.uuid4() for _ in range(3)]

    with environment(monkeypatch, tmp_path, redis_url, issuer):
        answers = [knock(signed(user_id)) for user_id in users]

    assert [answer.body["data"]["user_id"] for answer in answers] == [str(user_id) for user_id in users]
    assert issuer.fetches == 1


def test_forged_tokens_are_refused_with_at_most_one_more_fetch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, issuer: Issuer
) -> None:
    user_id = uuid.uuid4()
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = [
        signed(user_id, key=stranger),
        signed(user_id, kid=None),
        *(signed(user_id, kid=f"made-up-{number}") for number in range(5)),
        jwt.encode(claims_of(user_id), JWT_SECRET, algorithm="HS256", headers={"kid": "k1"}),
        _signed_with_the_public_key(user_id),
        jwt.encode(claims_of(user_id), key="", algorithm="none", headers={"kid": "k1"}),
    ]

    with environment(monkeypatch, tmp_path, redis_url, issuer):
        assert knock(signed(user_id)).status == 200
        answers = [knock(token) for token in forged]

    assert [(answer.status, answer.body["error"]["code"]) for answer in answers] == [(401, "UNAUTHENTICATED")] * len(
        forged
    )
    assert issuer.fetches == 1


def test_an_issuer_that_is_down_from_the_start_is_told_as_a_pause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, issuer: Issuer
) -> None:
    issuer.reply = Reply(500)

    with environment(monkeypatch, tmp_path, redis_url, issuer):
        answers = [knock(signed(uuid.uuid4())) for _ in range(3)]

    assert {(answer.status, answer.body["error"]["code"]) for answer in answers} == {(503, "MAINTENANCE")}
    assert answers[0].headers["Retry-After"]
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(302, headers={"Location": "http://127.0.0.1:9/elsewhere"}),
        Reply(404),
        Reply(body=b"<html>"),
        Reply(body=b"[]"),
        Reply(body=b'{"keys": "' + b"x" * BYTES_MAX + b'"}'),
    ],
)
def test_an_answer_that_is_no_set_of_keys_is_not_taken(reply: Reply) -> None:
    started_at = time.monotonic()

    with http_server(lambda _path: reply) as url, pytest.raises((OSError, ValueError)):
        fetch_keys(f"{url}/jwks.json")

    assert time.monotonic() - started_at < 2


def _signed_with_the_public_key(user_id: uuid.UUID) -> str:
    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = _part({"alg": "HS256", "typ": "JWT", "kid": "k1"})
    body = f"{head}.{_part(claims_of(user_id))}"
    mac = base64.urlsafe_b64encode(hmac.digest(pem, body.encode(), "sha256")).rstrip(b"=").decode()
    return f"{body}.{mac}"


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
