"""How many copies of a function are reserved, on AWS Lambda."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, cast

from trading.errors import ErrorCode, TradingError
from trading.settings import AWS_USER_AGENT

TIMEOUT_SECONDS = 3


class Capacity(Protocol):
    """Reads and sets what is reserved for a function."""

    def reserved(self, function: str) -> int | None:
        """What is reserved, None when nothing is. TradingError when it cannot be asked."""
        ...

    def reserve(self, function: str, concurrency: int) -> None:
        """Reserve `concurrency`. TradingError when it cannot be set."""
        ...


class LambdaCapacity:
    """Concurrency of the functions in `names`: our name of each to the one that it was deployed under."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def reserved(self, function: str) -> int | None:
        """What is reserved for `function`."""
        answer = self._call("get_function_concurrency", function)
        return answer.get("ReservedConcurrentExecutions")

    def reserve(self, function: str, concurrency: int) -> None:
        """Reserve `concurrency` for `function`."""
        self._call("put_function_concurrency", function, ReservedConcurrentExecutions=concurrency)

    def _call(self, operation: str, function: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]

        deployed = self._names.get(function)
        if deployed is None:
            raise TradingError(ErrorCode.NOT_FOUND, f"No function is called {function}.")
        try:
            return getattr(_client(), operation)(FunctionName=deployed, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise TradingError(ErrorCode.INTERNAL_ERROR, f"Lambda refused {operation}.") from error


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3  # pyright: ignore[reportMissingTypeStubs]
    from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

    limits = Config(
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        retries={"total_max_attempts": 2, "mode": "standard"},
        user_agent=AWS_USER_AGENT,
    )
    return cast("Any", boto3).client("lambda", config=limits)
