"""Every route of the HTTP API, one `Operation` each, a file a subject. docs/api/http.md says how to add one."""

from collections.abc import Mapping

from tools.openapi.forms import Schema
from tools.openapi.operation import Operation
from tools.openapi.routes import (
    account,
    account_risk,
    alerts,
    groups,
    health,
    interventions,
    kill_switch,
    margin_calls,
    margin_profiles,
    operators,
    orders,
    positions,
    previews,
    prices,
    risk,
    sessions,
    watch,
)

# In the order of the document.
SUBJECTS = (
    orders,
    groups,
    positions,
    previews,
    account,
    operators,
    interventions,
    alerts,
    watch,
    account_risk,
    risk,
    margin_calls,
    margin_profiles,
    kill_switch,
    prices,
    sessions,
    health,
)
OPERATIONS: tuple[Operation, ...] = tuple(operation for subject in SUBJECTS for operation in subject.OPERATIONS)
# What several operations refer to by name.
SCHEMAS: Mapping[str, Schema] = {name: schema for subject in SUBJECTS for name, schema in subject.SCHEMAS.items()}
