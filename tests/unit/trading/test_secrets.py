"""Secrets by reference."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from moto import mock_aws

from trading import secrets
from trading.secrets import CACHE_SECONDS, SecretsSilentError, forget_secrets, read_secret
from trading.settings import ConfigurationError


@pytest.fixture(autouse=True)
def nothing_cached() -> Iterator[None]:
    forget_secrets()
    yield
    forget_secrets()


def test_a_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("the key\n")

    assert read_secret(f"file:{path}") == "the key"


def test_a_changed_secret_is_picked_up_after_a_while(tmp_path: Path) -> None:
    # given a secret that was read
    path, now = tmp_path / "key", [1000.0]
    path.write_text("old")
    read_secret(f"file:{path}", clock=lambda: now[0])

    # when it changes
    path.write_text("new")

    # then
    now[0] += CACHE_SECONDS - 1
    assert read_secret(f"file:{path}", clock=lambda: now[0]) == "old"
    now[0] += 1
    assert read_secret(f"file:{path}", clock=lambda: now[0]) == "new"


def test_a_secret_of_aws_is_fetched_by_its_arn() -> None:
    with mock_aws():
        made = boto3.client("secretsmanager").create_secret(Name="database", SecretString="postgresql://x")

        assert read_secret(made["ARN"]) == "postgresql://x"


def refusal(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetSecretValue",
    )


@pytest.mark.parametrize(
    "silence",
    [
        ConnectTimeoutError(endpoint_url="https://x"),
        refusal(503, "ServiceUnavailable"),
        refusal(400, "ThrottlingException"),
    ],
)
def test_a_known_secret_outlives_the_silence_of_its_keeper(silence: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a secret that was read, and one that was not
    keeper = Keeper("the key")
    monkeypatch.setattr(secrets, "_client", keeper)
    now = [0.0]
    assert read_secret("arn:known", clock=lambda: now[0]) == "the key"

    # when Secrets Manager gives no answer
    keeper.fault, now[0] = silence, CACHE_SECONDS

    # then the one is what it was, asked for once a while, and the other is not made up
    assert [read_secret("arn:known", clock=lambda: now[0]) for _ in range(3)] == ["the key"] * 3
    assert keeper.asked == 2
    with pytest.raises(SecretsSilentError):
        read_secret("arn:unknown", clock=lambda: now[0])


def test_a_secret_that_is_refused_is_used_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper("the key")
    monkeypatch.setattr(secrets, "_client", keeper)
    read_secret("arn:known", clock=lambda: 0.0)
    keeper.fault = refusal(400, "AccessDeniedException")

    with pytest.raises(ClientError, match="AccessDenied"):
        read_secret("arn:known", clock=lambda: CACHE_SECONDS)


class Keeper:
    """Secrets Manager's client, and what makes it."""

    def __init__(self, text: str) -> None:
        self.text, self.asked = text, 0
        self.fault: Exception | None = None

    def __call__(self) -> "Keeper":
        return self

    def cache_clear(self) -> None:
        """Of the lru_cache that this stands for."""

    def get_secret_value(self, **_arguments: str) -> dict[str, str]:
        self.asked += 1
        if self.fault:
            raise self.fault
        return {"SecretString": self.text}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing-here"):
        read_secret(f"file:{tmp_path}/nothing-here")


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" \n")

    with pytest.raises(ConfigurationError, match="empty"):
        read_secret(f"file:{path}")


@pytest.mark.parametrize("reference", ["plain-secret", "file:relative", "https://x/y", ""])
def test_other_references_are_refused_and_not_repeated(reference: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_secret(reference)

    assert "plain-secret" not in str(raised.value)
