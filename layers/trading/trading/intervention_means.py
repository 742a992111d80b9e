"""Whether an intervention can be carried out with what is configured; one that cannot would stand as active."""

from collections.abc import Mapping
from typing import Any

from trading.errors import ErrorCode, TradingError, validation_failed
from trading.settings import Settings

# The feed that may take another provider, and the function that may have more copies.
FEED = "quotes"
ORDERS_FUNCTION = "execute_order"


def check_means(kind: str, target: str | None, parameters: Mapping[str, Any], given: Settings) -> None:
    """VALIDATION_FAILED or CONFLICT, which say what to do, for what cannot be carried out as this is configured."""
    if kind == "reserved_concurrency":
        _check_target(target, ORDERS_FUNCTION, "function whose concurrency can be raised")
        _check_concurrency(parameters.get("concurrency"), given.alert_concurrency_max)
    elif kind == "price_provider":
        _check_target(target, FEED, "feed whose provider can be switched")
        _check_provider(parameters.get("provider"), given)


def _check_target(target: str | None, only: str, what: str) -> None:
    if target != only:
        raise validation_failed("target", target, only, f"{only} is the {what}: send it as target.")


def _check_concurrency(wanted: object, most: int | None) -> None:
    if most is None:
        raise _conflict("concurrency", "Nothing may be raised here: deploy with AlertConcurrencyMax.")
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= most:
        constraint = f"concurrency: a whole number from 1 to {most}"
        raise validation_failed("parameters", wanted, constraint, f"Send parameters with {constraint}.")


def _check_provider(wanted: object, given: Settings) -> None:
    standby = given.quote_standby_provider
    if standby is None or standby == given.quote_provider:
        raise _conflict(wanted, "No other provider stands by: deploy with QuoteStandbyProvider.")
    if standby == "replay" and given.quote_replay_file is None:
        raise _conflict(wanted, "There is no recording to play: deploy with QuoteReplayFile.")
    if wanted == given.quote_provider:
        raise _conflict(
            wanted, f"The feed's own provider is {wanted}: DELETE the intervention that has switched it, if one has."
        )
    if wanted != standby:
        constraint = f"provider: {standby}"
        raise validation_failed(
            "parameters", wanted, constraint, f"Send parameters with {constraint}, the one that stands by."
        )


def _conflict(value: object, message: str) -> TradingError:
    error = validation_failed("parameters", value, "something that can be carried out here", message)
    return TradingError(ErrorCode.CONFLICT, error.message, error.details)
