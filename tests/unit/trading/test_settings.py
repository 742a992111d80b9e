"""The environment of a function: what it may say, and how a wrong value is told."""

import pytest

from trading.settings import ConfigurationError, Settings, required


def test_what_is_not_said_has_its_default() -> None:
    settings = Settings.from_environment({})

    assert settings.stage == "local"
    assert settings.ip_requests_per_minute == 600
    assert settings.database_secret is None


def test_an_empty_variable_counts_as_missing() -> None:
    assert Settings.from_environment({"JWT_JWKS_URL": "", "REDIS_TIMEOUT_MS": " "}).redis_timeout_ms == 150


def test_lists_and_mappings_are_read_from_text() -> None:
    settings = Settings.from_environment(
        {"API_CLIENT_IDS": "one, two,", "JWT_AUDIENCE": "a", "JWT_CLAIM_NAMES": '{"tier": "custom:tier"}'}
    )

    assert settings.api_client_ids == ("one", "two")
    assert settings.jwt_audience == ("a",)
    assert settings.jwt_claim_names == {"tier": "custom:tier"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STAGE", "production"),
        ("LOG_LEVEL", "loud"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_ALGORITHM", "HS512"),
        ("JWT_JWKS_URL", "file:///etc/passwd"),
        ("JWT_CLAIM_NAMES", "{"),
        ("JWT_CLAIM_NAMES", "[]"),
        ("JWT_CLAIM_NAMES", '{"exp": "x"}'),
        ("JWT_CLAIM_NAMES", '{"tier": 5}'),
        ("CONNECTIONS_ENDPOINT", "ws://x"),
        ("IP_REQUESTS_PER_MINUTE", "0"),
        ("IP_REQUESTS_PER_MINUTE", "many"),
        ("REDIS_TIMEOUT_MS", "1.5"),
        ("IDEMPOTENCY_KEY_DAYS", "-1"),
        ("QUOTES_PER_SECOND", "1000"),
        ("ALERT_TOPICS", "page=arn:topic,mail"),
        ("ALERT_TOPICS", "=arn:topic"),
    ],
)
def test_a_wrong_value_names_its_variable_and_not_itself(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable) as raised:
        Settings.from_environment({variable: value})

    assert f"'{value}'" not in str(raised.value)


def test_every_wrong_variable_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"STAGE.*REDIS_TIMEOUT_MS"):
        Settings.from_environment({"STAGE": "x", "REDIS_TIMEOUT_MS": "x"})


def test_a_variable_that_is_needed_here_is_named_when_it_is_missing() -> None:
    assert required("x", "JWT_ISSUER") == "x"
    for missing in (None, ()):
        with pytest.raises(ConfigurationError, match="JWT_ISSUER is not set"):
            required(missing, "JWT_ISSUER")


def test_settings_cannot_be_changed() -> None:
    settings = Settings.from_environment({})

    with pytest.raises(ValueError, match="frozen"):
        settings.stage = "prod"  # pyright: ignore[reportAttributeAccessIssue]


def test_venues_have_their_providers() -> None:
    given = {"VENUES": "paper:paper, tests:mock", "ALLOW_MOCK_VENUE": "true", "STAGE": "dev"}
    assert Settings.from_environment(given).venues == {"paper": "paper", "tests": "mock"}


@pytest.mark.parametrize("venues", ["paper", "paper=paper", "x:nobody", "internal:paper", "a:paper,", "a:paper,a:mock"])
def test_venues_of_another_form_are_refused(venues: str) -> None:
    with pytest.raises(ConfigurationError, match="VENUES"):
        Settings.from_environment({"VENUES": venues})


@pytest.mark.parametrize(("stage", "allowed"), [("prod", "true"), ("prod", "false"), ("local", "false"), ("dev", "")])
def test_the_mock_venue_needs_leave_and_is_never_in_production(stage: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError, match="mock"):
        Settings.from_environment({"VENUES": "tests:mock", "ALLOW_MOCK_VENUE": allowed, "STAGE": stage})
