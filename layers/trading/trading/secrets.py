"""Secrets by reference: a Secrets Manager ARN on AWS, a file on one machine."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from trading.settings import ConfigurationError, required, settings

CACHE_SECONDS = 60
FETCH_TIMEOUT_SECONDS = 2

_cached: dict[str, tuple[float, str]] = {}


def read_secret(reference: str, *, clock: Callable[[], float] = time.monotonic) -> str:
    """The text that `reference` (`arn:aws:secretsmanager:...` or `file:/absolute/path`) points to.

    Kept for CACHE_SECONDS, so that a rotated secret is picked up soon. Raises ConfigurationError for a reference
    of another form, a missing file or an empty secret; botocore's errors pass through.
    """
    known = _cached.get(reference)
    if known is not None and clock() - known[0] < CACHE_SECONDS:
        return known[1]
    text = _fetch(reference).strip()
    if not text:
        raise ConfigurationError(f"the secret {reference} is empty")
    _cached[reference] = (clock(), text)
    return text


def forget_secrets() -> None:
    """Drop what is cached; the next read fetches again."""
    _cached.clear()


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
    import boto3  # pyright: ignore[reportMissingTypeStubs]
    from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

    limits = Config(
        connect_timeout=FETCH_TIMEOUT_SECONDS,
        read_timeout=FETCH_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 2, "mode": "standard"},
    )
    client = cast("Any", boto3).client("secretsmanager", config=limits)
    return client.get_secret_value(SecretId=arn)["SecretString"]
