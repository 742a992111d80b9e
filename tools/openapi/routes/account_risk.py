"""What an account risks: exposure, value at risk, drawdown."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ACCOUNT_ID
from tools.openapi.forms import (
    COUNT,
    CURRENCY,
    DECIMAL,
    IDENTIFIER,
    PRECISE_TIMESTAMP,
    TEXT,
    Schema,
    closed,
    list_of,
    nullable,
    ref,
    word,
)
from tools.openapi.operation import Answer, Operation
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT_PARAMETER
from tools.openapi.parameters import path_id
from tools.openapi.routes.operators import READERS, READERS_ROLE
from trading.errors import ErrorCode

# Null while a position or a conversion has no quote.
MARKED = nullable(DECIMAL)
SCHEMAS: Mapping[str, Schema] = {
    "AccountRisk": closed(
        {
            "account_id": IDENTIFIER,
            "currency": {**CURRENCY, "description": "Of every amount and value here but those by_currency."},
            "equity": MARKED,
            "exposure": closed(
                {
                    "gross": {**MARKED, "description": "The value of all open positions, whatever their side."},
                    "net": {**MARKED, "description": "That of the long ones less that of the short ones."},
                    "by_symbol": list_of(
                        closed(
                            {
                                "symbol": TEXT,
                                "long_quantity": DECIMAL,
                                "short_quantity": DECIMAL,
                                "long_value": MARKED,
                                "short_value": MARKED,
                            }
                        )
                    ),
                    "by_currency": list_of(
                        closed(
                            {
                                "currency": CURRENCY,
                                "amount": {**MARKED, "description": "In that currency; below zero it is owed."},
                                "value": MARKED,
                            }
                        )
                    ),
                }
            ),
            "value_at_risk": closed(
                {
                    "method": word(["historical", "parametric"]),
                    "scenarios": {**COUNT, "description": "Days of the past that were counted; 0 if parametric."},
                    "one_day_95": {**MARKED, "description": "A day's loss that is not exceeded on 95 of 100 days."},
                    "one_day_99": MARKED,
                }
            ),
            "drawdown": closed(
                {
                    "peak_equity": MARKED,
                    "current": {**MARKED, "description": "How far equity is below its peak."},
                    "current_percent": {**MARKED, "description": "Of the peak."},
                    "max": {**MARKED, "description": "The farthest that it has been below a peak."},
                }
            ),
            "day": closed(
                {
                    "starts_at": {**nullable(PRECISE_TIMESTAMP), "description": "Null before its first business."},
                    "start_equity": MARKED,
                    "pnl": {**MARKED, "description": "Since then, money that came or went apart."},
                }
            ),
        }
    ),
}
RISK_FACTS: Mapping[str, Any] = {
    "account_id": ACCOUNT_ID,
    "currency": "USD",
    "equity": "99974.00",
    "exposure": {
        "gross": "110000.00",
        "net": "110000.00",
        "by_symbol": [
            {
                "symbol": "EURUSD",
                "long_quantity": "1",
                "short_quantity": "0",
                "long_value": "110000.00",
                "short_value": "0.00",
            }
        ],
        "by_currency": [
            {"currency": "EUR", "amount": "100000.00", "value": "110000.00"},
            {"currency": "USD", "amount": "-110000.00", "value": "-110000.00"},
        ],
    },
    "value_at_risk": {"method": "parametric", "scenarios": 0, "one_day_95": "723.74", "one_day_99": "1023.59"},
    "drawdown": {"peak_equity": "100000.00", "current": "26.00", "current_percent": "0.03", "max": "26.00"},
    "day": {"starts_at": "2026-11-25T22:00:00.000000Z", "start_equity": "100000.00", "pnl": "-26.00"},
}
READ = Answer("The account's risk.", ref("AccountRisk"), RISK_FACTS)

OPERATIONS = (
    Operation(
        route="GET /api/v1/account/risk",
        operation_id="getAccountRisk",
        tag="account",
        summary="Read exposure, value at risk and drawdown of an account",
        permission="account:read",
        parameters=(ACCOUNT_PARAMETER,),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: READ},
    ),
    Operation(
        route="GET /api/v1/accounts/{id}/risk",
        operation_id="getRiskOfAccount",
        tag="operators",
        summary="Read exposure, value at risk and drawdown of anybody's account",
        description=READERS_ROLE,
        permission=READERS,
        parameters=(path_id("an account"),),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: READ},
    ),
)
