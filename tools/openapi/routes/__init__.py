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
    prices,
    risk,
    sessions,
)

OPERATIONS: tuple[Operation, ...] = (
    *orders.ORDERS,
    *positions.POSITIONS,
    *account.ACCOUNT,
    *operators.OPERATORS,
    *interventions.INTERVENTIONS,
    *alerts.ALERTS,
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
    **account.SCHEMAS,
    **operators.SCHEMAS,
    **interventions.SCHEMAS,
    **alerts.SCHEMAS,
    **account_risk.SCHEMAS,
    **risk.SCHEMAS,
    **margin_calls.SCHEMAS,
    **kill_switch.SCHEMAS,
    **prices.SCHEMAS,
    **health.SCHEMAS,
}
