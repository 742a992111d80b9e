"""Secrets by reference."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from trading.secrets import CACHE_SECONDS, forget_secrets, read_secret
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
    path, now = tmp_path / "key", [0.0]
    path.write_text("old")
    read_secret(f"file:{path}", clock=lambda: now[0])

    # when it changes
    path.write_text("new")

    # then
    now[0] = CACHE_SECONDS - 0.1
    assert read_secret(f"file:{path}", clock=lambda: now[0]) == "old"
    now[0] = CACHE_SECONDS
    assert read_secret(f"file:{path}", clock=lambda: now[0]) == "new"


def test_a_secret_of_aws_is_fetched_by_its_arn() -> None:
    with mock_aws():
        made = boto3.client("secretsmanager").create_secret(Name="database", SecretString="postgresql://x")

        assert read_secret(made["ARN"]) == "postgresql://x"


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
