"""Every route of the HTTP API, one `Operation` each, a file a subject. docs/api/http.md says how to add one."""

from collections.abc import Mapping

from tools.openapi.forms import Schema
from tools.openapi.operation import Operation
from tools.openapi.routes import (
    account,
    account_risk,
    alerts,
    health,
    interventions,
    kill_switch,
    margin_calls,
    operators,
    orders,
    positions,
    previews,
    prices,
    risk,
    sessions,
    watch,
)

OPERATIONS: tuple[Operation, ...] = (
    *orders.ORDERS,
    *positions.POSITIONS,
    *previews.PREVIEWS,
    *account.ACCOUNT,
    *operators.OPERATORS,
    *interventions.INTERVENTIONS,
    *alerts.ALERTS,
    *watch.WATCH,
    *account_risk.RISK,
    *risk.RISK,
    *margin_calls.MARGIN_CALLS,
    *kill_switch.KILL_SWITCH,
    *prices.PRICES,
    *sessions.SESSIONS,
    *health.HEALTH,
)
# What several operations refer to by name.
SCHEMAS: Mapping[str, Schema] = {
    **orders.SCHEMAS,
    **positions.SCHEMAS,
    **previews.SCHEMAS,
    **account.SCHEMAS,
    **operators.SCHEMAS,
    **interventions.SCHEMAS,
    **alerts.SCHEMAS,
    **watch.SCHEMAS,
    **account_risk.SCHEMAS,
    **risk.SCHEMAS,
    **margin_calls.SCHEMAS,
    **kill_switch.SCHEMAS,
    **prices.SCHEMAS,
    **health.SCHEMAS,
}
