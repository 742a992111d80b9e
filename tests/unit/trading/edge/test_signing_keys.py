"""The issuer's keys: rotation, outage, and callers who make up key ids."""

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from trading.edge.authentication import UnknownKeyError
from trading.edge.signing_keys import FETCH_PAUSE_SECONDS, KEYS_SECONDS, SigningKeys
from trading.errors import ErrorCode, TradingError

KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def entry(kid: str, key: Any = KEYS[0], **more: object) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return ECAlgorithm.to_jwk(public, as_dict=True) | {"kid": kid} | more
    return RSAAlgorithm.to_jwk(public, as_dict=True) | {"kid": kid} | more


class Issuer:
    """A JWKS endpoint and a clock."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.entries: Any = list(entries)
        self.fault: Exception | None = None
        self.fetches = 0
        self.now = 1000.0

    def fetch(self, _url: str) -> Mapping[str, Any]:
        self.fetches += 1
        if self.fault:
            raise self.fault
        return {"keys": self.entries}

    def keys(self, algorithm: str = "RS256") -> SigningKeys:
        return SigningKeys("https://issuer.test/jwks", algorithm, fetch=self.fetch, clock=lambda: self.now)


def test_the_set_is_fetched_once_for_many_tokens() -> None:
    issuer = Issuer(entry("one"))
    keys = issuer.keys()

    found = [keys.find("one") for _ in range(5)]

    assert issuer.fetches == 1
    issuer.now += KEYS_SECONDS - 1
    assert (keys.find("one"), issuer.fetches) == (found[0], 1)
    assert found[0].public_numbers() == KEYS[0].public_key().public_numbers()


def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    # given
    issuer = Issuer(entry("one"))
    keys = issuer.keys()
    keys.find("one")

    # when the issuer rotates
    issuer.entries = [entry("two", KEYS[1])]
    issuer.now += FETCH_PAUSE_SECONDS

    # then
    assert keys.find("two").public_numbers() == KEYS[1].public_key().public_numbers()
    with pytest.raises(UnknownKeyError):
        keys.find("one")


def test_made_up_key_ids_cannot_hammer_the_issuer() -> None:
    issuer = Issuer(entry("one"))
    keys = issuer.keys()

    for number in range(100):
        with pytest.raises(UnknownKeyError):
            keys.find(f"forged-{number}")

    assert issuer.fetches == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fault": OSError("unreachable")},
        {"fault": ValueError("not a set of keys")},
        {"entries": []},
        {"entries": {"kid": "one"}},
        {"entries": [entry("one", use="enc")]},
    ],
    ids=["unreachable", "no document", "no key", "no list", "none that fits"],
)
def test_known_keys_stay_in_use_while_the_issuer_is_down(change: dict[str, Any]) -> None:
    issuer = Issuer(entry("one"))
    keys = issuer.keys()
    keys.find("one")

    for name, value in change.items():
        setattr(issuer, name, value)
    issuer.now += KEYS_SECONDS + 1

    assert keys.find("one")
    assert issuer.fetches == 2


def test_without_any_keys_the_caller_is_told_to_come_back() -> None:
    issuer = Issuer()
    issuer.fault = OSError("unreachable")
    keys = issuer.keys()

    for _ in range(3):
        with pytest.raises(TradingError) as raised:
            keys.find("one")
        assert raised.value.code is ErrorCode.MAINTENANCE
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    "unfit",
    [
        entry("it", use="enc"),
        entry("it", alg="RS512"),
        entry("it", EC_KEY),
        {"kty": "RSA", "kid": "it", "n": "!", "e": "AQAB"},
        {"kty": "oct", "kid": "it", "k": "c2VjcmV0"},
        {"kid": 5, "kty": "RSA"},
        entry("it") | {"kid": ["it"]},
        "text",
    ],
)
def test_keys_that_do_not_fit_are_left_out(unfit: Any) -> None:
    keys = Issuer(unfit, entry("good")).keys()

    with pytest.raises(UnknownKeyError):
        keys.find("it")
    assert keys.find("good")


def test_a_token_that_names_no_key_is_refused_without_a_fetch() -> None:
    issuer = Issuer(entry("one"))

    with pytest.raises(UnknownKeyError):
        issuer.keys().find(None)

    assert issuer.fetches == 0
