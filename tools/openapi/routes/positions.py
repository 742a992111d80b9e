"""Positions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tools.openapi.errors import ACCOUNT_ID, EXAMPLES, ORDER_ID
from tools.openapi.forms import (
    COUNT,
    CURRENCY,
    DECIMAL,
    IDENTIFIER,
    TEXT,
    TIMESTAMP,
    Schema,
    closed,
    constant,
    list_of,
    nullable,
    page_of,
    ref,
    whole_list_of,
    word,
)
from tools.openapi.operation import Answer, Operation
from tools.openapi.order_answers import CREATED_MEMBERS
from tools.openapi.order_body import keyed_body, without_key
from tools.openapi.order_examples import EXECUTION, TRADER_ID
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, one_of, path_id
from trading.accounts import Account, Worth
from trading.edge.change_dialects import closed_body
from trading.edge.dialects import spoken
from trading.edge.position_dialects import TAKEN, closed_by_body, closings_body
from trading.edge.preview_dialects import closes_body
from trading.edge.reading_dialects import POSITION_STATUSES, position_body, position_summary_body, positions_body
from trading.errors import ErrorCode
from trading.hedges import Sides
from trading.mass_closing import POSITIONS_MAX, Attempt, MassClosing
from trading.order_entry import SYMBOL_PATTERN
from trading.position_changes import VERSION_MAX, PositionChange
from trading.positions import Position
from trading.previews.closes import CloseOutcome, ClosePreview, PreviewedClose
from trading.pricing import FillPrice

VERSION: Schema = {
    "type": "integer",
    "minimum": 1,
    "maximum": VERSION_MAX,
    "description": "Grows with each fill and each change by its owner, not while the stop loss trails.",
}
POSITION = closed(
    {
        "id": IDENTIFIER,
        "account_id": IDENTIFIER,
        "order_id": {**IDENTIFIER, "description": "The order that opened it."},
        "symbol": TEXT,
        "side": word(spoken("rest", side) for side in ("long", "short")),
        "status": word(["OPEN", "CLOSED"]),
        "quantity": {**DECIMAL, "description": "In lots."},
        "opened_quantity": DECIMAL,
        "entry_price": DECIMAL,
        "current_price": {
            **nullable(DECIMAL),
            "description": "What closing would bring now: bid of a long, ask of a short; null without a usable quote.",
        },
        "unrealized_pnl": {**nullable(DECIMAL), "description": "In `currency`, as all amounts here."},
        "financing": {
            **DECIMAL,
            "description": "What holding it overnight has come to, negative where it cost; in the balance already.",
        },
        "realized_pnl": DECIMAL,
        "currency": CURRENCY,
        "margin_used": DECIMAL,
        "stop_loss": nullable(DECIMAL),
        "take_profit": nullable(DECIMAL),
        "trailing_distance": {
            **nullable(DECIMAL),
            "description": "How far the stop loss trails the best mark; null while it stands still.",
        },
        "version": VERSION,
        "commission_paid": DECIMAL,
        "created_at": TIMESTAMP,
        "updated_at": TIMESTAMP,
        "closed_at": nullable(TIMESTAMP),
    }
)
POSITION_LEFT = closed(
    {
        "id": IDENTIFIER,
        "symbol": TEXT,
        "side": word(spoken("rest", side) for side in ("long", "short")),
        "status": word(["OPEN", "CLOSED"]),
        "quantity": DECIMAL,
        "entry_price": DECIMAL,
        "current_price": DECIMAL,
        "unrealized_pnl": DECIMAL,
        "realized_pnl": DECIMAL,
        "margin_used": DECIMAL,
    }
)


def _taken(name: str, form: Schema) -> Schema:
    """A member of a change, described in the words that refusals use."""
    return {"description": f"Send {TAKEN[name]}.", **form}


CHANGES: Mapping[str, Schema] = {
    **{
        name: _taken(name, {"anyOf": [ref("PositiveNumber")]})
        for name in PositionChange.model_fields
        if name not in ("breakeven", "version", "idempotency_key")
    },
    "breakeven": _taken("breakeven", constant(True)),
    "version": {**VERSION, "description": "The one that you saw; another is CONFLICT."},
}
CHANGE: Schema = {
    **keyed_body(CHANGES),
    "description": (
        "At least one level, each in one form: the stop loss as stop_loss, stop_loss_distance, stop_loss_amount, "
        "breakeven or trailing_distance, the take profit as take_profit, take_profit_distance or "
        "take_profit_amount. Distances are in price from the entry price, of the trail from the mark; amounts are "
        "what is lost or gained there, in account currency at the present rate."
    ),
}
CLOSE_BY_BODY = keyed_body({"quantity": ref("PositiveNumber")})
CLOSE = keyed_body({"quantity": ref("PositiveNumber"), "max_slippage": ref("NumberFromZero")})
CLOSE_BY: Schema = {
    **CLOSE_BY_BODY,
    "properties": {
        "opposite_position_id": _taken("opposite_position_id", IDENTIFIER),
        **CLOSE_BY_BODY["properties"],
    },
    "required": ["opposite_position_id"],
}
CLOSE_ALL: Schema = {
    **keyed_body(
        {
            "account_id": _taken("account_id", {**IDENTIFIER}),
            "symbol": _taken("symbol", {"type": "string", "pattern": SYMBOL_PATTERN.replace("A-Z", "A-Za-z")}),
            "side": _taken("side", word(spoken("rest", side) for side in ("long", "short"))),
            "which": _taken("which", word(["all", "losers", "winners"])),
        }
    ),
    "description": "Which of the account's open positions; all, where nothing is said.",
}
REFUSAL = nullable(closed({"error": word(ErrorCode), "message": TEXT, "details": {"type": "object"}}))
CLOSE_PREVIEW = closed(
    {
        "account_id": IDENTIFIER,
        "currency": CURRENCY,
        "data": list_of(
            closed(
                {
                    "position_id": IDENTIFIER,
                    "symbol": TEXT,
                    "side": word(spoken("rest", side) for side in ("long", "short")),
                    "quantity": {**DECIMAL, "description": "In lots, what would be closed."},
                    "price": {
                        **nullable(DECIMAL),
                        "description": "Null, as what follows from it, where it is refused before it has a price.",
                    },
                    "slippage": nullable(DECIMAL),
                    "commission": nullable(DECIMAL),
                    "realized_pnl": {**nullable(DECIMAL), "description": "Before commission."},
                    "margin_released": nullable(DECIMAL),
                    "accepted": {"type": "boolean"},
                    "refusal": nullable(
                        closed({"code": word(ErrorCode), "message": TEXT, "details": {"type": "object"}})
                    ),
                    "quoted_at": nullable(TIMESTAMP),
                }
            )
        ),
        "left": {**COUNT, "description": "How many of the positions meant would not be closed, or not yet."},
        "commission": {**DECIMAL, "description": "Of all that is accepted, as the other sums."},
        "realized_pnl": DECIMAL,
        "margin_released": {
            **DECIMAL,
            "description": "Less what the covered rest needs more; below zero where a hedge is left open on one side.",
        },
        "balance_before": DECIMAL,
        "balance_after": DECIMAL,
        "free_margin_before": {**nullable(DECIMAL), "description": "Null while something held has no quote."},
        "free_margin_after": nullable(DECIMAL),
        "margin_level_before": {**nullable(DECIMAL), "description": "In percent; null while no margin is used."},
        "margin_level_after": nullable(DECIMAL),
    }
)
SCHEMAS: Mapping[str, Schema] = {
    "Position": POSITION,
    "HeldSymbol": closed(
        {
            "account_id": IDENTIFIER,
            "symbol": TEXT,
            "positions": {"type": "integer", "minimum": 1},
            "long_quantity": {**DECIMAL, "description": "In lots, as the others."},
            "short_quantity": DECIMAL,
            "net_quantity": {**DECIMAL, "description": "Long less short."},
            "long_entry_price": {
                **nullable(DECIMAL),
                "description": "The average, weighted by lots, with two places more than the tick has at most.",
            },
            "short_entry_price": nullable(DECIMAL),
            "unrealized_pnl": {**nullable(DECIMAL), "description": "Null while one of them has no usable quote."},
            "margin_used": {**DECIMAL, "description": "Less hedged_margin_credit."},
            "hedged_margin_credit": DECIMAL,
            "currency": CURRENCY,
        }
    ),
    "PositionChangeRequest": CHANGE,
    "CloseAllRequest": CLOSE_ALL,
    "CloseByRequest": CLOSE_BY,
    "PreviewCloseAllRequest": without_key(CLOSE_ALL),
    "PreviewCloseByRequest": without_key(CLOSE_BY),
    "PreviewCloseRequest": without_key(CLOSE),
    "ClosePreview": CLOSE_PREVIEW,
    "ClosedPair": closed(
        {
            **CREATED_MEMBERS,
            "realized_pnl": DECIMAL,
            "currency": CURRENCY,
            "closed_quantity": {**DECIMAL, "description": "In lots, of each of the two."},
            "position": ref("Position"),
            "opposite_position": ref("Position"),
        }
    ),
    "CloseAllAnswer": closed(
        {
            "data": list_of(
                closed(
                    {
                        "position_id": IDENTIFIER,
                        "symbol": TEXT,
                        "side": word(spoken("rest", side) for side in ("long", "short")),
                        "outcome": {
                            **word(["CLOSED", "SENT", "REFUSED"]),
                            "description": "SENT: its order is on its way to the venue at which it is held.",
                        },
                        "order": {
                            "anyOf": [
                                closed({**CREATED_MEMBERS, "realized_pnl": DECIMAL, "currency": CURRENCY}),
                                ref("UnfilledOrder"),
                                {"type": "null"},
                            ]
                        },
                        "refusal": REFUSAL,
                    }
                )
            ),
            "closed": COUNT,
            "sent": COUNT,
            "refused": COUNT,
            "left": {
                **COUNT,
                "description": "How many of those that matched are open still, refused or not yet asked.",
            },
        }
    ),
    "CloseRequest": CLOSE,
    "ClosingOrder": closed(
        {**CREATED_MEMBERS, "realized_pnl": DECIMAL, "currency": CURRENCY, "position": POSITION_LEFT}
    ),
}
CHANGE_ERRORS = frozenset(
    {
        ErrorCode.NOT_FOUND,
        ErrorCode.CONFLICT,
        ErrorCode.MARKET_DATA_UNAVAILABLE,
        ErrorCode.RISK_LIMIT_VIOLATION,
    }
)
POSITION_FACTS: Mapping[str, Any] = {
    "id": "01a1fc5d-1d65-7e95-b7ba-4385d0cd8a94",
    "account_id": ACCOUNT_ID,
    "order_id": ORDER_ID,
    "symbol": "EURUSD",
    "side": "long",
    "status": "open",
    "quantity": "0.1",
    "opened_quantity": "0.1",
    "entry_price": "1.15983",
    "current_price": "1.15963",
    "unrealized_pnl": "-2.00",
    "financing": "-0.97",
    "realized_pnl": "0.00",
    "currency": "USD",
    "margin_used": "115.98",
    "stop_loss": "1.15500",
    "take_profit": None,
    "trailing_distance": None,
    "version": 2,
    "commission_paid": "0.00",
    "created_at": "2026-11-21T04:28:43.227114Z",
    "updated_at": "2026-11-21T04:28:43.227114Z",
    "closed_at": None,
}
CLOSED: Mapping[str, Any] = {
    **EXECUTION.answer,
    "side": "sell",
    "execution_price": "1.16083",
    "total_cost": "0.00",
    "realized_pnl": "10.00",
    "currency": "USD",
    "position": {
        "position_id": POSITION_FACTS["id"],
        "symbol": "EURUSD",
        "side": "long",
        "status": "closed",
        "quantity": 0,
        "entry_price": "1.15983",
        "current_price": "1.16095",
        "unrealized_pnl": "0.00",
        "realized_pnl": "10.00",
        "margin_used": "0.00",
    },
}
HELD: Mapping[str, Any] = {
    "account_id": ACCOUNT_ID,
    "symbol": "EURUSD",
    "positions": 3,
    "long_quantity": "0.3",
    "short_quantity": "0.1",
    "net_quantity": "0.2",
    "long_entry_price": "1.1598333",
    "short_entry_price": "1.16020",
    "unrealized_pnl": "-4.10",
    "margin_used": "463.97",
    "hedged_margin_credit": "0.00",
    "currency": "USD",
}
PAIR_LEFT: Mapping[str, Any] = {
    **POSITION_FACTS,
    "status": "closed",
    "quantity": "0",
    "current_price": None,
    "unrealized_pnl": None,
    "realized_pnl": "10.00",
    "margin_used": "0.00",
    "closed_at": POSITION_FACTS["updated_at"],
}
CLOSED_PAIR: Mapping[str, Any] = {
    **CLOSED,
    "quantity": Decimal("0.2"),
    "slippage": 0,
    "closed_quantity": Decimal("0.1"),
    "position": PAIR_LEFT,
    "opposite_position": {**PAIR_LEFT, "id": "01a1fc5d-1e02-7a11-9c40-5a0c8f1d2b3e", "side": "short"},
}
CLOSINGS = MassClosing(
    [
        Attempt({"position_id": POSITION_FACTS["id"], "symbol": "EURUSD", "side": "long"}, CLOSED, None),
        Attempt(
            {"position_id": "01a1fc5d-1e02-7a11-9c40-5a0c8f1d2b3e", "symbol": "AAPL", "side": "short"},
            {},
            EXAMPLES[ErrorCode.MARKET_CLOSED],
        ),
    ],
    left=1,
    replayed=False,
)
PREVIEWED = closes_body(
    ClosePreview(
        ACCOUNT_ID,
        Account("USD", "margin", Decimal(100)),
        Decimal(10000),
        Worth(Decimal(10000), Decimal("11.20"), Decimal("115.98")),
        {"EURUSD": Sides(Decimal(100), Decimal("0.1"), Decimal("115.98"), Decimal(0), Decimal(0))},
        [
            PreviewedClose(
                POSITION_FACTS["id"],
                "EURUSD",
                Position("long", Decimal("0.1"), Decimal("1.15983"), Decimal("115.98")),
                Decimal("0.1"),
                datetime(2026, 11, 21, 4, 28, 43, tzinfo=UTC),
                CloseOutcome(
                    FillPrice(Decimal("1.16083"), Decimal("0.00012")),
                    Decimal(0),
                    Decimal("10.00"),
                    Decimal("115.98"),
                    Decimal("-11.20"),
                ),
                None,
            )
        ],
        left=0,
    )
)
LIST = Answer(
    "Open positions, whole and oldest first; of closed ones or all a page, newest first.",
    {
        "anyOf": [
            whole_list_of(ref("Position")),
            page_of(ref("Position")),
        ]
    },
    positions_body([POSITION_FACTS]),
)
LIST_PARAMETERS = (
    one_of("status", POSITION_STATUSES, "Which; open when it is left out."),
    ACCOUNT,
    PAGE_LIMIT,
    CURSOR,
)

OPERATIONS = (
    Operation(
        route="GET /api/v1/positions",
        operation_id="listPositions",
        tag="positions",
        summary="List your positions, open ones marked at the newest quotes",
        permission="positions:read",
        parameters=LIST_PARAMETERS,
        answers={200: LIST},
    ),
    Operation(
        route="GET /api/positions",
        operation_id="listPositionsPlainly",
        tag="positions",
        summary="The same as /api/v1/positions",
        permission="positions:read",
        parameters=LIST_PARAMETERS,
        answers={200: LIST},
    ),
    Operation(
        route="GET /api/v1/positions/summary",
        operation_id="summarizePositions",
        tag="positions",
        summary="What you hold of each symbol, marked at the newest quotes",
        permission="positions:read",
        parameters=(ACCOUNT,),
        answers={
            200: Answer(
                "One entry a symbol and account.",
                whole_list_of(ref("HeldSymbol")),
                position_summary_body([HELD]),
            )
        },
    ),
    Operation(
        route="PATCH /api/v1/positions/{id}",
        operation_id="changePosition",
        tag="positions",
        summary="Change where a position is to end: stop loss, take profit, trailing stop",
        description=(
            "What is left out stays. A level has to be on its own side of the market now: of a long the stop loss "
            "below the bid and the take profit above it, of a short the other way round about the ask. A suspended "
            "client may do it, too."
        ),
        permission="orders:write",
        keyed=True,
        parameters=(path_id("a position of yours"),),
        body=ref("PositionChangeRequest"),
        body_example={"stop_loss": None},
        errors=CHANGE_ERRORS,
        answers={200: Answer("The position as it is now.", ref("Position"), position_body(POSITION_FACTS))},
    ),
    Operation(
        route="POST /api/v1/positions/{id}/close",
        operation_id="closePosition",
        tag="positions",
        summary="Close a position at the market, whole or in part",
        permission="orders:write",
        keyed=True,
        parameters=(path_id("a position of yours"),),
        body=ref("CloseRequest"),
        body_example={"quantity": "0.1"},
        may_lack_body=True,
        errors=frozenset(
            {
                ErrorCode.NOT_FOUND,
                ErrorCode.CONFLICT,
                ErrorCode.INSUFFICIENT_POSITION,
                ErrorCode.MARKET_CLOSED,
                ErrorCode.SLIPPAGE_EXCEEDED,
                ErrorCode.MARKET_DATA_UNAVAILABLE,
            }
        ),
        answers={
            200: Answer(
                "The order that closed, and the position as it left it; or the order, on its way to its venue.",
                {"anyOf": [ref("ClosingOrder"), ref("UnfilledOrder")]},
                closed_body(CLOSED, TRADER_ID),
            )
        },
    ),
    Operation(
        route="POST /api/v1/positions/{id}/close-by",
        operation_id="closePositionByOpposite",
        tag="positions",
        summary="Close a position and an opposite one of the same symbol against each other",
        description=(
            "Of a hedging account. Both are reduced by the same quantity at one price, the opposite position's entry "
            "price: the difference of the entry prices is realized on the position in the path, without spread, "
            "slippage and commission. One order with two fills, so that its quantity is twice the closed one."
        ),
        permission="orders:write",
        keyed=True,
        parameters=(path_id("a position of yours"),),
        body=ref("CloseByRequest"),
        body_example={"opposite_position_id": "01a1fc5d-1e02-7a11-9c40-5a0c8f1d2b3e"},
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.MARKET_DATA_UNAVAILABLE}),
        answers={
            200: Answer(
                "The order that closed, and both positions as it left them.",
                ref("ClosedPair"),
                closed_by_body(CLOSED_PAIR, TRADER_ID),
            )
        },
    ),
    Operation(
        route="POST /api/v1/positions/close-all",
        operation_id="closeAllPositions",
        tag="positions",
        summary="Close many positions at the market, each by an order of its own",
        description=(
            f"At most {POSITIONS_MAX} of them, oldest first; `left` says whether to ask again, with a new key. What "
            "cannot be closed now is refused by itself, by a closed market or for want of a fresh price. A repeat with "
            "the same key goes on where the first request ended, closes nothing twice and is told the same."
        ),
        permission="orders:write",
        keyed=True,
        body=ref("CloseAllRequest"),
        body_example={"which": "losers", "symbol": "AAPL"},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_SYMBOL}),
        answers={
            200: Answer(
                "What became of each, and how many are left.",
                ref("CloseAllAnswer"),
                closings_body(CLOSINGS, TRADER_ID),
            )
        },
    ),
    Operation(
        route="POST /api/v1/positions/{id}/close/preview",
        operation_id="previewClose",
        tag="positions",
        summary="See what closing a position would come to; nothing is written",
        permission="orders:read",
        parameters=(path_id("a position of yours"),),
        body=ref("PreviewCloseRequest"),
        body_example={"quantity": "0.1"},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.MARKET_DATA_UNAVAILABLE}),
        answers={200: Answer("What it would come to.", ref("ClosePreview"), PREVIEWED)},
    ),
    Operation(
        route="POST /api/v1/positions/{id}/close-by/preview",
        operation_id="previewCloseByOpposite",
        tag="positions",
        summary="See what closing two opposite positions against each other would come to; nothing is written",
        permission="orders:read",
        parameters=(path_id("a position of yours"),),
        body=ref("PreviewCloseByRequest"),
        body_example={"opposite_position_id": "01a1fc5d-1e02-7a11-9c40-5a0c8f1d2b3e"},
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.MARKET_DATA_UNAVAILABLE}),
        answers={200: Answer("What it would come to, the position in the path first.", ref("ClosePreview"), PREVIEWED)},
    ),
    Operation(
        route="POST /api/v1/positions/close-all/preview",
        operation_id="previewCloseAll",
        tag="positions",
        summary="See what closing many positions would come to; nothing is written",
        permission="orders:read",
        body=ref("PreviewCloseAllRequest"),
        body_example={"which": "losers", "symbol": "AAPL"},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_SYMBOL}),
        answers={200: Answer("What each would come to, and all of them.", ref("ClosePreview"), PREVIEWED)},
    ),
)
