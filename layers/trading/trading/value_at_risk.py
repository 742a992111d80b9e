"""Value at risk: what open positions lose in a day no more than with a given confidence.

The database computes by the same rules; see `account_var`. Amounts are in account currency, returns fractions.
"""

import math
from collections.abc import Sequence
from decimal import Decimal

# Of the standard normal distribution, by the level of confidence.
QUANTILE_95 = Decimal("1.644854")
QUANTILE_99 = Decimal("2.326348")


def historical_var(losses: Sequence[Decimal], level: Decimal) -> Decimal | None:
    """The smallest of `losses` that at least a fraction `level` of them do not exceed, at least 0; None without any.

    Historical simulation (J. Hull, "Options, Futures, and Other Derivatives", on value at risk): each day of the past
    is a scenario, in which the positions of now lose their value times that day's return. A gain is a negative loss.
    """
    if not losses:
        return None
    place = max(1, math.ceil(len(losses) * level))
    return max(Decimal(0), sorted(losses)[place - 1])


def scenario_loss(value: Decimal, unrealized_pnl: Decimal, daily_return: Decimal, rate_return: Decimal) -> Decimal:
    """What one symbol loses when its price moves by `daily_return` and the rate of its currency by `rate_return`.

    A contract for difference owes no notional in the other currency: what the rate moves is what was gained or lost so
    far, and the day's own gain. With U gained so far and N in value, both at the rate of now,
    (U + N r)(1 + f) - U = N r (1 + f) + U f.
    """
    return -(value * daily_return * (1 + rate_return) + unrealized_pnl * rate_return)


def parametric_var(values: Sequence[Decimal], volatilities: Sequence[Decimal], quantile: Decimal) -> Decimal:
    """Sum of |value| x daily volatility, times `quantile`: normal returns, all against the account at once.

    J.P. Morgan/Reuters, "RiskMetrics - Technical Document" (1996), with every correlation at its worst, because without
    a history none is known.
    """
    deviation = sum((abs(value) * v for value, v in zip(values, volatilities, strict=True)), Decimal(0))
    return deviation * quantile
