"""Secrets by reference: a Secrets Manager ARN on AWS, a file on one machine."""

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from trading.settings import AWS_USER_AGENT, ConfigurationError, required, settings

CACHE_SECONDS = 60
FETCH_TIMEOUT_SECONDS = 2

_cached: dict[str, tuple[float, str]] = {}


class SecretsSilentError(Exception):
    """Secrets Manager gives no answer at present."""


def read_secret(reference: str, *, clock: Callable[[], float] = time.monotonic) -> str:
    """The text that `reference` (`arn:aws:secretsmanager:...` or `file:/absolute/path`) points to.

    Kept for CACHE_SECONDS, so that a rotated secret is picked up soon, and for as long again while Secrets Manager is
    silent: SecretsSilentError only where nothing is known. Raises ConfigurationError for a reference of another form,
    a missing file or an empty secret; what Secrets Manager refuses passes through as botocore's error.
    """
    known = _cached.get(reference)
    if known is not None and clock() - known[0] < CACHE_SECONDS:
        return known[1]
    try:
        text = _fetch(reference).strip()
    except SecretsSilentError:
        if known is None:
            raise
        text = known[1]
    if not text:
        raise ConfigurationError(f"the secret {reference} is empty")
    _cached[reference] = (clock(), text)
    return text


def forget_secrets() -> None:
    """Drop what is cached; the next read fetches again."""
    _cached.clear()
    _client.cache_clear()


def database_url() -> str:
    """The URL of this function's role at the database."""
    return read_secret(required(settings().database_secret, "DATABASE_SECRET"))


def redis_url() -> str:
    """The URL of Redis."""
    return read_secret(required(settings().redis_secret, "REDIS_SECRET"))


def jwt_secret() -> str:
    """The key that HS256 tokens are signed with."""
    return read_secret(required(settings().jwt_secret, "JWT_SECRET"))


def csrf_secret() -> str:
    """The key that CSRF tokens are signed with."""
    return read_secret(required(settings().csrf_secret, "CSRF_SECRET"))


def _fetch(reference: str) -> str:
    if reference.startswith("file:/"):
        try:
            return Path(reference.removeprefix("file:")).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"the secret {reference} cannot be read: {error.strerror}") from error
    if reference.startswith("arn:"):
        return _fetch_from_aws(reference)
    raise ConfigurationError("a secret is given as arn:aws:secretsmanager:... or file:/absolute/path")


def _fetch_from_aws(arn: str) -> str:
    from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]

    try:
        return _client().get_secret_value(SecretId=arn)["SecretString"]
    except BotoCoreError as error:
        raise SecretsSilentError(type(error).__name__) from error
    except ClientError as error:
        if not _is_passing(error):
            raise
        raise SecretsSilentError(str(error)) from error


def _is_passing(error: Any) -> bool:
    response: dict[str, Any] = error.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or response.get("Error", {}).get("Code") == "ThrottlingException"


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3  # pyright: ignore[reportMissingTypeStubs]
    from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

    limits = Config(
        connect_timeout=FETCH_TIMEOUT_SECONDS,
        read_timeout=FETCH_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 2, "mode": "standard"},
        user_agent=AWS_USER_AGENT,
    )
    return cast("Any", boto3).client("secretsmanager", config=limits)
