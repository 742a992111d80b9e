"""Forged, stale and malformed tokens, and the clock's edges."""

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm

from tests.kit.functions import AUDIENCE, ISSUER, JWT_SECRET, claims_of
from trading.edge.authentication import (
    CLOCK_SKEW_SECONDS,
    PERMISSIONS_MAX,
    TOKEN_CHARACTERS_MAX,
    VERIFIED_TOKEN_SECONDS,
    VERIFIED_TOKENS_MAX,
    Authenticator,
    TokenRules,
    UnknownKeyError,
    bearer_token,
)
from trading.errors import ErrorCode, TradingError

NOW = 1_800_000_000
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def authenticator(clock: Clock, *, algorithm: str = "HS256", key: Any = JWT_SECRET, **rules: Any) -> Authenticator:
    given: dict[str, Any] = {"issuer": ISSUER, "audiences": (AUDIENCE,), "claim_names": {}} | rules
    return Authenticator(TokenRules(algorithm=algorithm, **given), lambda _kid: key, clock=clock)


def token(key: Any = JWT_SECRET, algorithm: str = "HS256", **overrides: Any) -> str:
    return jwt.encode(claims_of(None, **({"iat": NOW, "exp": NOW + 600} | overrides)), key, algorithm=algorithm)


def constraint_of_refusal(verifier: Authenticator, text: str) -> object:
    with pytest.raises(TradingError) as raised:
        verifier.verify(text)
    assert raised.value.code is ErrorCode.UNAUTHENTICATED
    return raised.value.details["constraint"]


def unsigned(header: dict[str, object], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_good_token_tells_who_is_calling(clock: Clock) -> None:
    identity = authenticator(clock).verify(token(tier="silver", sid="session-1", permissions="a b"))

    assert identity.tier == "silver"
    assert identity.session_id == "session-1"
    assert identity.permissions == {"a", "b"}


@pytest.mark.parametrize("spelling", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_signature_is_refused(clock: Clock, spelling: str) -> None:
    forged = unsigned({"alg": spelling, "typ": "JWT"}, claims_of(iat=NOW, exp=NOW + 600))

    assert constraint_of_refusal(authenticator(clock), forged) == "signature"


def test_the_public_key_does_not_serve_as_a_shared_secret(clock: Clock) -> None:
    # given: the RS256 issuer's public key, which anybody has, used to sign with HS256
    import hmac

    pem = public_pem(RSA_KEY)
    body = unsigned({"alg": "HS256", "typ": "JWT"}, claims_of(iat=NOW, exp=NOW + 600)).rpartition(".")[0]
    mac = base64.urlsafe_b64encode(hmac.digest(pem, body.encode(), "sha256")).rstrip(b"=").decode()

    # then
    for key in (RSA_KEY.public_key(), pem):
        verifier = authenticator(clock, algorithm="RS256", key=key)
        assert constraint_of_refusal(verifier, f"{body}.{mac}") == "signature"


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA_KEY), ("ES256", EC_KEY)])
def test_public_key_algorithms_verify(clock: Clock, algorithm: str, key: Any) -> None:
    verifier = authenticator(clock, algorithm=algorithm, key=key.public_key())

    assert verifier.verify(token(key, algorithm)).role == "trader"


def test_another_algorithm_than_the_configured_one_is_refused(clock: Clock) -> None:
    for algorithm in ("HS384", "HS512"):
        assert constraint_of_refusal(authenticator(clock), token(JWT_SECRET * 2, algorithm)) == "signature"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_token_is_refused(clock: Clock, part: int) -> None:
    parts = token().split(".")
    parts[part] = parts[part][:5] + ("A" if parts[part][5] != "A" else "B") + parts[part][6:]

    assert constraint_of_refusal(authenticator(clock), ".".join(parts)) == "signature"


def test_a_token_signed_with_another_key_is_refused(clock: Clock) -> None:
    assert constraint_of_refusal(authenticator(clock), token("x" * 40)) == "signature"


@pytest.mark.parametrize(
    ("overrides", "constraint"),
    [
        ({"iss": "https://other.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": None, "client_id": "other"}, "audience"),
        ({"aud": "other", "client_id": AUDIENCE}, "audience"),
        ({"sub": None}, "claim sub"),
        ({"sub": "not-a-uuid"}, "claim sub"),
        ({"email": None}, "claim email"),
        ({"email": "x" * 257}, "claim email"),
        ({"email": "a\0@example.com"}, "claim email"),
        ({"email": "a@example.com\n"}, "claim email"),
        ({"email": "\ud800@example.com"}, "claim email"),
        ({"role": None}, "claim role"),
        ({"role": ""}, "claim role"),
        ({"role": ["admin"]}, "claim role"),
        ({"role": "trader\x1b[2J"}, "claim role"),
        ({"tier": None}, "claim tier"),
        ({"tier": "diamond"}, "claim tier"),
        ({"tier": "unmetered"}, "claim tier"),
        ({"permissions": None}, "claim permissions"),
        ({"permissions": {"all": True}}, "claim permissions"),
        ({"permissions": [1]}, "claim permissions"),
        ({"permissions": ["orders:write\0"]}, "claim permissions"),
        ({"permissions": ["p"] * 101}, "claim permissions"),
        ({"exp": None}, "claim exp"),
        ({"exp": "9999999999"}, "claim exp"),
        ({"exp": True}, "claim exp"),
        ({"exp": float("inf")}, "claim exp"),
        ({"exp": 10**400}, "claim exp"),
        ({"exp": (NOW + 600) * 1000}, "claim exp"),
        ({"iat": None}, "claim iat"),
        ({"iat": float("nan")}, "claim iat"),
        ({"nbf": "soon"}, "claim nbf"),
        ({"sid": 7}, "claim sid"),
        ({"sid": "s\0"}, "claim sid"),
        ({"client_id": "\x7f"}, "claim client_id"),
    ],
)
def test_wrong_and_missing_claims_are_refused(clock: Clock, overrides: dict[str, Any], constraint: str) -> None:
    # PyJWT refuses to sign some of these itself, so they are signed as raw bytes.
    text = jwt.api_jws.encode(
        json.dumps(claims_of(None, **({"iat": NOW, "exp": NOW + 600} | overrides))).encode(),
        JWT_SECRET,
        algorithm="HS256",
    )

    assert constraint_of_refusal(authenticator(clock), text) == constraint


def test_claims_as_long_as_they_may_be_are_taken(clock: Clock) -> None:
    words = [f"p{number}" for number in range(PERMISSIONS_MAX)]

    identity = authenticator(clock).verify(token(email="x" * 256, permissions=words))

    assert (identity.email, identity.permissions) == ("x" * 256, set(words))


def test_a_token_may_have_8192_characters_and_no_more(clock: Clock) -> None:
    # given two good tokens; four characters of a token carry three of its claims
    shortest = len(token(padding=""))
    longest = token(padding="x" * ((8192 - shortest) * 3 // 4))
    longer = token(padding="x" * ((8192 - shortest) * 3 // 4 + 3))

    # then
    assert len(longest) <= 8192 < len(longer)
    assert authenticator(clock).verify(longest)
    assert constraint_of_refusal(authenticator(clock), longer) == "too long"


def test_the_unmetered_tier_is_honoured_where_it_is_allowed_alone(clock: Clock) -> None:
    text = token(tier="unmetered")

    assert authenticator(clock, unmetered_allowed=True).verify(text).tier == "unmetered"
    assert constraint_of_refusal(authenticator(clock, unmetered_allowed=False), text) == "claim tier"


def test_the_audience_may_be_one_of_several_or_the_client(clock: Clock) -> None:
    verifier = authenticator(clock)

    assert verifier.verify(token(aud=["other", AUDIENCE]))
    assert verifier.verify(token(aud=None, client_id=AUDIENCE))


def test_a_token_ends_at_its_last_second(clock: Clock) -> None:
    verifier, text = authenticator(clock), token(exp=NOW + 10)

    clock.now = NOW + 9.999
    assert verifier.verify(text)
    clock.now = NOW + 10
    assert constraint_of_refusal(verifier, text) == "expired"  # though it was verified and kept a moment ago


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_waits_for_its_time(clock: Clock, claim: str) -> None:
    verifier, text = authenticator(clock), token(**dict[str, Any]({claim: NOW + 100}))

    clock.now = NOW + 100 - CLOCK_SKEW_SECONDS - 0.001
    assert constraint_of_refusal(verifier, text) == "not valid yet"
    clock.now = NOW + 100 - CLOCK_SKEW_SECONDS
    assert verifier.verify(text)


@pytest.mark.parametrize(
    ("skew", "constraint"),
    [
        (-300, "not valid yet"),
        (-6, "not valid yet"),
        (-5, None),
        (0, None),
        (299, None),
        (300, "expired"),
        (600, "expired"),
    ],
)
def test_a_worker_whose_clock_is_wrong_rather_refuses_than_admits(
    clock: Clock, skew: int, constraint: str | None
) -> None:
    # given a token that was issued now, for five minutes
    verifier, text = authenticator(clock), token(iat=NOW, exp=NOW + 300)

    # when a worker sees it whose clock is ahead, or behind
    clock.now = NOW + skew

    # then
    if constraint is None:
        assert verifier.verify(text)
    else:
        assert constraint_of_refusal(verifier, text) == constraint


def test_a_clock_that_is_set_back_does_not_make_an_old_verification_last(clock: Clock) -> None:
    # given a token that was verified, by a key that the issuer has withdrawn since
    keys = [JWT_SECRET]
    verifier = Authenticator(TokenRules("HS256", ISSUER, (AUDIENCE,), {}), lambda _kid: keys[0], clock=clock)
    text = token(iat=NOW - 600)
    assert verifier.verify(text)
    keys[0] = "the next key of the issuer, long enough"

    # when
    clock.now = NOW - 300

    # then
    assert constraint_of_refusal(verifier, text) == "signature"


def test_keys_rotate_without_a_gap_and_the_old_one_ends(clock: Clock) -> None:
    # given an issuer that signs with a key, then with the next while both are known, then withdraws the first
    old, new = EC_KEY, ec.generate_private_key(ec.SECP256R1())
    known = {"old": old.public_key()}

    def find(kid: str | None) -> Any:
        if kid not in known:
            raise UnknownKeyError(kid)
        return known[kid]

    verifier = Authenticator(TokenRules("ES256", ISSUER, (AUDIENCE,), {}), find, clock=clock)
    claims = claims_of(iat=NOW, exp=NOW + 3600)
    first = jwt.encode(claims, old, algorithm="ES256", headers={"kid": "old"})
    second = jwt.encode(claims, new, algorithm="ES256", headers={"kid": "new"})
    assert verifier.verify(first)
    assert constraint_of_refusal(verifier, second) == "signature"

    # when / then
    known["new"] = new.public_key()
    assert verifier.verify(first)
    assert verifier.verify(second)
    del known["old"]
    clock.now = NOW + VERIFIED_TOKEN_SECONDS
    assert constraint_of_refusal(verifier, first) == "signature"
    assert verifier.verify(second)
    # and a token that only says it was signed by the new key was not
    lying = jwt.encode(claims, old, algorithm="ES256", headers={"kid": "new"})
    assert constraint_of_refusal(verifier, lying) == "signature"


@pytest.mark.parametrize(
    ("algorithm", "key"), [("RS384", RSA_KEY), ("PS256", RSA_KEY), ("ES256", EC_KEY), ("HS256", JWT_SECRET)]
)
def test_a_verifier_of_rs256_takes_no_other_algorithm(clock: Clock, algorithm: str, key: Any) -> None:
    verifier = authenticator(clock, algorithm="RS256", key=RSA_KEY.public_key())

    assert constraint_of_refusal(verifier, token(key, algorithm)) == "signature"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_verifier_of_the_shared_key_takes_no_public_key(clock: Clock, algorithm: str) -> None:
    text = token(RSA_KEY if algorithm == "RS256" else EC_KEY, algorithm)

    assert constraint_of_refusal(authenticator(clock), text) == "signature"


def test_a_key_that_a_token_brings_along_is_not_used(clock: Clock) -> None:
    # given a token signed by a stranger, that names the stranger's key in each way there is
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own_key = RSAAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    verifier = authenticator(clock, algorithm="RS256", key=RSA_KEY.public_key())
    for header in ({"jwk": own_key}, {"jku": "https://stranger.test/jwks"}, {"x5u": "https://stranger.test/x5u"}):
        text = jwt.encode(claims_of(iat=NOW, exp=NOW + 600), stranger, algorithm="RS256", headers=header)

        assert constraint_of_refusal(verifier, text) == "signature"


def test_claims_may_have_other_names(clock: Clock) -> None:
    verifier = authenticator(clock, claim_names={"tier": "custom:tier", "client_id": "azp"})

    identity = verifier.verify(token(**{"tier": None, "custom:tier": "platinum", "azp": "robot"}))

    assert (identity.tier, identity.client_id) == ("platinum", "robot")


def test_a_verified_token_is_looked_up_again_only_after_a_while(clock: Clock) -> None:
    # given: an issuer that withdraws its key after the first verification
    keys = [JWT_SECRET]
    rules = TokenRules("HS256", ISSUER, (AUDIENCE,), {})

    def find(_kid: str | None) -> str:
        if not keys:
            raise UnknownKeyError("withdrawn")
        return keys[0]

    verifier, text = Authenticator(rules, find, clock=clock), token()
    verifier.verify(text)
    keys.clear()

    # then: the token works on for a bounded time
    clock.now = NOW + VERIFIED_TOKEN_SECONDS - 1
    assert verifier.verify(text)
    clock.now = NOW + VERIFIED_TOKEN_SECONDS
    assert constraint_of_refusal(verifier, text) == "signature"


def test_the_memory_of_verified_tokens_is_bounded(clock: Clock) -> None:
    # given
    searched: list[str | None] = []

    def find(kid: str | None) -> str:
        searched.append(kid)
        return JWT_SECRET

    verifier = Authenticator(TokenRules("HS256", ISSUER, (AUDIENCE,), {}), find, clock=clock)
    tokens = [token(jti=str(number)) for number in range(VERIFIED_TOKENS_MAX + 1)]

    # when
    for text in (*tokens[:-1], tokens[0], tokens[-1]):
        verifier.verify(text)

    # then the one that was not used for the longest time is forgotten, and no other
    assert len(verifier._verified) == VERIFIED_TOKENS_MAX
    searched.clear()
    for text in (tokens[0], *tokens[2:]):
        verifier.verify(text)
    assert not searched
    verifier.verify(tokens[1])
    assert len(searched) == 1


@pytest.mark.parametrize(
    "text", ["", "a", "a.b", "a.b.c", "....", "é.é.é", "A" * (TOKEN_CHARACTERS_MAX + 1), "\ud800.x.y", "null.null.null"]
)
def test_garbage_is_refused_like_any_bad_token(clock: Clock, text: str) -> None:
    constraint_of_refusal(authenticator(clock), text)


@pytest.mark.parametrize("header", ["Bearer a.b.c", "bearer a.b.c", " BEARER   a.b.c "])
def test_the_token_of_a_header(header: str) -> None:
    assert bearer_token(header) == "a.b.c"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcg==", "token"])
def test_a_header_without_bearer_token_is_refused(header: str | None) -> None:
    with pytest.raises(TradingError) as raised:
        bearer_token(header)

    assert raised.value.code is ErrorCode.UNAUTHENTICATED


def test_the_refusal_never_repeats_the_token(clock: Clock) -> None:
    text = token("x" * 40)

    with pytest.raises(TradingError) as raised:
        authenticator(clock).verify(text)

    assert text not in f"{raised.value.message}{raised.value.details}"
