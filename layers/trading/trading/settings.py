"""What the environment of a function says, checked once and frozen."""

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

type Stage = Literal["local", "dev", "staging", "prod"]
type LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
type Algorithm = Literal["HS256", "RS256", "ES256"]

# Of calls to AWS. botocore otherwise puts one together anew for each, in a quarter of the time that a call takes.
AWS_USER_AGENT = "trading"

# The log, or a webhook on this machine.
ALERT_SINK_FORM = r"^(log|http://(127\.0\.0\.1|\[::1\]):.+)$"

PROVIDERS = ("paper", "mock")
CLAIMS = ("sub", "email", "role", "tier", "permissions", "sid", "client_id")


class ConfigurationError(Exception):
    """The environment is wrong; the message names the variable."""


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def _claim_names(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        names: Any = json.loads(value)
    except ValueError as error:
        raise ValueError("must be a JSON object") from error
    if not isinstance(names, dict):
        raise ValueError("must be a JSON object of our claim name -> the token's")
    mapping = cast("dict[str, Any]", names)
    unknown = sorted(set(mapping) - set(CLAIMS))
    if unknown:
        raise ValueError(f"unknown claim {unknown[0]!r}; known are {', '.join(CLAIMS)}")
    return mapping


def _venues(value: object) -> object:
    if not isinstance(value, str):
        return value
    named: dict[str, str] = {}
    for entry in value.split(","):
        venue, separator, provider = entry.strip().partition(":")
        if not separator or venue == "internal" or provider not in PROVIDERS:
            raise ValueError(f"must be venue:provider with commas between, the provider one of {', '.join(PROVIDERS)}")
        if venue in named:
            raise ValueError(f"names the venue {venue} twice")
        named[venue] = provider
    return named


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [entry.strip().partition("=") for entry in value.split(",") if entry.strip()]
    if not all(name and named for name, _, named in pairs):
        raise ValueError("must be name=value with commas between")
    return {name: named for name, _, named in pairs}


type Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
type Pairs = Annotated[Mapping[str, str], BeforeValidator(_pairs)]


class Settings(BaseModel):
    """The variables that functions are configured by; secrets appear only as references (see `secrets`).

    A variable that is empty counts as missing. Use `settings()` to read the process's own.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    stage: Annotated[Stage, Field(alias="STAGE")] = "local"
    log_level: Annotated[LogLevel, Field(alias="LOG_LEVEL")] = "INFO"
    service: Annotated[str, Field(alias="POWERTOOLS_SERVICE_NAME")] = "trading"
    metrics_namespace: Annotated[str, Field(alias="POWERTOOLS_METRICS_NAMESPACE")] = "Trading"
    version: Annotated[str, Field(alias="RELEASE_VERSION")] = "development"

    database_secret: Annotated[str | None, Field(alias="DATABASE_SECRET")] = None
    redis_secret: Annotated[str | None, Field(alias="REDIS_SECRET")] = None
    jwt_secret: Annotated[str | None, Field(alias="JWT_SECRET")] = None
    csrf_secret: Annotated[str | None, Field(alias="CSRF_SECRET")] = None

    jwt_algorithm: Annotated[Algorithm, Field(alias="JWT_ALGORITHM")] = "HS256"
    jwt_jwks_url: Annotated[str | None, Field(alias="JWT_JWKS_URL", pattern=r"^https?://")] = None
    jwt_issuer: Annotated[str | None, Field(alias="JWT_ISSUER")] = None
    jwt_audience: Annotated[Names, Field(alias="JWT_AUDIENCE")] = ()
    jwt_claim_names: Annotated[Mapping[str, str], BeforeValidator(_claim_names), Field(alias="JWT_CLAIM_NAMES")] = {}
    api_client_ids: Annotated[Names, Field(alias="API_CLIENT_IDS")] = ()
    allow_unmetered_tier: Annotated[bool, Field(alias="ALLOW_UNMETERED_TIER")] = False

    # Venue name -> provider.
    venues: Annotated[Mapping[str, str], BeforeValidator(_venues), Field(alias="VENUES")] = {}
    allow_mock_venue: Annotated[bool, Field(alias="ALLOW_MOCK_VENUE")] = False
    venue_timeout_ms: Annotated[int, Field(alias="VENUE_TIMEOUT_MS", ge=50, le=10_000)] = 5_000
    order_retry_max_attempts: Annotated[int, Field(alias="ORDER_RETRY_MAX_ATTEMPTS", ge=0, le=5)] = 3
    # The first wait; each further one is twice as long.
    order_retry_wait_ms: Annotated[int, Field(alias="ORDER_RETRY_WAIT_MS", ge=10, le=2_000)] = 1_000
    # Seconds after which a submission that the venue does not know is taken for lost.
    order_status_update_timeout: Annotated[int, Field(alias="ORDER_STATUS_UPDATE_TIMEOUT", ge=1, le=3_600)] = 30
    mock_latency_ms: Annotated[int, Field(alias="MOCK_LATENCY_MS", ge=0, le=5_000)] = 50
    mock_failure_percent: Annotated[int, Field(alias="MOCK_FAILURE_PERCENT", ge=0, le=100)] = 0

    # Where alerts are told (see channels.registry), and what CloudWatch is asked about (see collectors).
    alert_sink: Annotated[str | None, Field(alias="ALERT_SINK", pattern=ALERT_SINK_FORM)] = None
    alert_slack_webhook_secret: Annotated[str | None, Field(alias="ALERT_SLACK_WEBHOOK_SECRET")] = None
    alert_pager_webhook_secret: Annotated[str | None, Field(alias="ALERT_PAGER_WEBHOOK_SECRET")] = None
    alert_email_from: Annotated[str | None, Field(alias="ALERT_EMAIL_FROM")] = None
    alert_email_to: Annotated[Names, Field(alias="ALERT_EMAIL_TO")] = ()
    # Channel name -> ARN of its topic.
    alert_topics: Annotated[Pairs, Field(alias="ALERT_TOPICS")] = {}
    alert_cloudwatch: Annotated[bool, Field(alias="ALERT_CLOUDWATCH")] = False
    # Our name of each function -> the one that it is deployed under.
    alert_functions: Annotated[Pairs, Field(alias="ALERT_FUNCTIONS")] = {}
    alert_dead_letter_queues: Annotated[Names, Field(alias="ALERT_DEAD_LETTER_QUEUES")] = ()
    alert_database_id: Annotated[str | None, Field(alias="ALERT_DATABASE_ID")] = None
    alert_database_memory_mb: Annotated[int | None, Field(alias="ALERT_DATABASE_MEMORY_MB", ge=1)] = None
    alert_concurrency_max: Annotated[int | None, Field(alias="ALERT_CONCURRENCY_MAX", ge=1)] = None

    route_queue_url: Annotated[str | None, Field(alias="ROUTE_QUEUE_URL")] = None
    risk_queue_url: Annotated[str | None, Field(alias="RISK_QUEUE_URL")] = None
    trigger_queue_url: Annotated[str | None, Field(alias="TRIGGER_QUEUE_URL")] = None
    relay_queue_url: Annotated[str | None, Field(alias="RELAY_QUEUE_URL")] = None
    authentication_timeout_queue_url: Annotated[str | None, Field(alias="AUTHENTICATION_TIMEOUT_QUEUE_URL")] = None
    connections_endpoint: Annotated[str | None, Field(alias="CONNECTIONS_ENDPOINT", pattern=r"^https?://")] = None

    ip_requests_per_minute: Annotated[int, Field(alias="IP_REQUESTS_PER_MINUTE", ge=1, le=1_000_000)] = 600
    database_timeout_ms: Annotated[int, Field(alias="DATABASE_TIMEOUT_MS", ge=100, le=60_000)] = 6_000
    redis_timeout_ms: Annotated[int, Field(alias="REDIS_TIMEOUT_MS", ge=1, le=5_000)] = 150
    idempotency_key_days: Annotated[int, Field(alias="IDEMPOTENCY_KEY_DAYS", ge=1, le=3_650)] = 30
    relay_linger_seconds: Annotated[int, Field(alias="RELAY_LINGER_SECONDS", ge=0, le=60)] = 5
    quote_provider: Annotated[str, Field(alias="QUOTE_PROVIDER")] = "simulated"
    quote_standby_provider: Annotated[str | None, Field(alias="QUOTE_STANDBY_PROVIDER")] = None
    quote_replay_file: Annotated[str | None, Field(alias="QUOTE_REPLAY_FILE")] = None
    quote_replay_speed: Annotated[Decimal, Field(alias="QUOTE_REPLAY_SPEED", ge=Decimal("0.001"), le=10_000)] = Decimal(
        1
    )
    quote_replay_start: Annotated[AwareDatetime | None, Field(alias="QUOTE_REPLAY_START")] = None
    quote_seed: Annotated[int, Field(alias="QUOTE_SEED")] = 1
    quotes_per_second: Annotated[int, Field(alias="QUOTES_PER_SECOND", ge=1, le=50)] = 4

    @model_validator(mode="after")
    def _mock_is_allowed(self) -> Self:
        if "mock" in self.venues.values() and (self.stage == "prod" or not self.allow_mock_venue):
            raise ValueError("VENUES names the mock venue, which ALLOW_MOCK_VENUE allows, and never in production")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Settings of `environment`; ConfigurationError names each variable with a wrong value."""
        given = {name: value for name, value in environment.items() if value.strip()}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            # The value itself is left out: it may be a secret put into the wrong variable.
            faults = "; ".join(
                ": ".join((*map(str, fault["loc"][:1]), fault["msg"].removeprefix("Value error, ")))
                for fault in error.errors()
            )
            raise ConfigurationError(f"the environment is wrong: {faults}") from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read at the first call; `settings.cache_clear()` reads them again."""
    return Settings.from_environment(os.environ)


def required[T](value: T | None, variable: str) -> T:
    """`value`, or ConfigurationError saying that `variable` is not set."""
    if value is None or value == ():
        raise ConfigurationError(f"the environment is wrong: {variable} is not set")
    return value
