"""Reading back what was ordered, replacing, canceling and closing it, and the CSRF token that changing things takes."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from trading.cancellation import cancel_order, cancel_orders
from trading.closing import close_position
from trading.edge.change_dialects import (
    all_canceled_body,
    cancel_all_entry,
    cancel_entry,
    canceled_body,
    close_entry,
    closed_body,
    limit_as_sent,
    replace_entry,
    replaced_body,
)
from trading.edge.changes import admit_change, states_as_spoken, tell_outcome
from trading.edge.csrf import make_csrf_token
from trading.edge.envelope import timestamp
from trading.edge.gate import Caller, admit, check_permission
from trading.edge.http import Request, Response, http_handler
from trading.edge.reading_dialects import (
    account_body,
    audit_body,
    ledger_body,
    ledger_page,
    optional_id,
    order_body,
    order_query,
    orders_body,
    parse_id,
    position_page_body,
    position_query,
    position_summary_body,
    positions_body,
    profile_body,
)
from trading.errors import ErrorCode, TradingError
from trading.execution import Execution, RouteStarter, hash_of_request
from trading.queue import start_routing
from trading.reading import may_read_any_audit, read_order, read_order_audit, read_profile
from trading.replacement import replace_order
from trading.secrets import csrf_secret
from trading.settings import settings
from trading.store import orders, positions
from trading.store.connection import database
from trading.store.reading import ReadingStore

if TYPE_CHECKING:
    from trading.linked_orders import LinkKind
    from trading.previews.closes import ClosePreview


def list_orders(request: Request) -> Response:
    """GET /api/v1/orders."""
    return _orders(request, closed_only=False)


def list_closed_orders(request: Request) -> Response:
    """GET /api/orders/history."""
    return _orders(request, closed_only=True)


def preview_order(request: Request) -> Response:
    """POST /api/v1/orders/preview: what an order, or another one in the place of one, would come to, without it."""
    # What no other route of this function needs.
    from trading.edge.order_dialects import faults_as_sent
    from trading.edge.preview_dialects import REPLACED, order_of, preview_body, preview_entry, replacement_preview
    from trading.previews import orders as order_previews
    from trading.store.instruments import instrument_catalogue

    caller = admit(request, route_group="preview", state_changing=False, permission="orders:read")
    body = request.json()
    if REPLACED in body:
        with states_as_spoken(), limit_as_sent(body):
            replaces, change = replacement_preview(body)
            order = order_of(_store().preview_replacement(caller.user_id, change.asked(replaces)))
            found = order_previews.preview_order(
                order,
                caller.user_id,
                instruments=instrument_catalogue(),
                venues=settings().venues,
                read_facts=_store().preview_facts,
                replaces=replaces,
            )
        return Response(body=preview_body(order, found))
    with faults_as_sent(body):
        order = preview_entry(request, body)
        found = order_previews.preview_order(
            order,
            caller.user_id,
            instruments=instrument_catalogue(),
            venues=settings().venues,
            read_facts=_store().preview_facts,
        )
    return Response(body=preview_body(order, found))


def preview_close(request: Request) -> Response:
    """POST /api/v1/positions/{id}/close/preview: what a close would come to, without it."""
    from trading.previews.closes import preview_close

    caller, body = _previewer(request)
    with states_as_spoken():
        entry = close_entry(request, body)
        asked = {"position_id": parse_id(request.path_parameters["id"], "id"), **entry.asked()}
        found = preview_close(_store().preview_close(caller.user_id, asked), entry.max_slippage)
    return _closes_previewed(found)


def preview_close_by(request: Request) -> Response:
    """POST /api/v1/positions/{id}/close-by/preview: what closing by an opposite position would come to."""
    from trading.edge.position_dialects import close_by_entry
    from trading.previews.closes import preview_close

    caller, body = _previewer(request)
    with states_as_spoken():
        entry = close_by_entry(request, body)
        asked = {"position_id": parse_id(request.path_parameters["id"], "id"), **entry.asked()}
        found = preview_close(_store().preview_close_by(caller.user_id, asked))
    return _closes_previewed(found)


def preview_close_all(request: Request) -> Response:
    """POST /api/v1/positions/close-all/preview: what closing many positions would come to."""
    from trading.edge.position_dialects import close_all_entry
    from trading.mass_closing import POSITIONS_MAX
    from trading.previews.closes import preview_many

    caller, body = _previewer(request)
    asked = close_all_entry(request, body).asked() | {"positions_max": POSITIONS_MAX}
    return _closes_previewed(preview_many(_store().preview_close_all(caller.user_id, asked)))


def preview_linked(kind: "LinkKind", request: Request) -> Response:
    """POST /api/v1/orders/oco/preview, /oto/preview and /bracket/preview: how a group would be judged."""
    from trading.edge.linked_dialects import linked_entry, linked_faults_as_sent
    from trading.edge.preview_dialects import group_preview_body
    from trading.previews.groups import preview_linked
    from trading.store.instruments import instrument_catalogue

    caller, body = _previewer(request)
    with linked_faults_as_sent(body):
        found = preview_linked(
            linked_entry(kind, request, body),
            caller.user_id,
            instruments=instrument_catalogue(),
            read_group=_store().preview_group,
        )
    return Response(body=group_preview_body(found))


def preview_cancel(request: Request) -> Response:
    """POST /api/v1/orders/{id}/cancel/preview: what a cancellation would end, without it."""
    from trading.edge.preview_dialects import cancel_preview_body
    from trading.previews.cancellations import preview_cancellation

    caller, body = _previewer(request)
    cancel_entry(request, body)
    with states_as_spoken():
        asked = {"order_id": parse_id(request.path_parameters["id"], "id")}
        found = preview_cancellation(_store().preview_cancel(caller.user_id, asked))
    return Response(body=cancel_preview_body(found))


def preview_cancel_all(request: Request) -> Response:
    """POST /api/v1/orders/cancel-all/preview: what canceling many orders would end."""
    from trading.edge.preview_dialects import cancel_preview_body
    from trading.previews.cancellations import preview_cancellation

    caller, body = _previewer(request)
    asked = cancel_all_entry(request, body).asked()
    found = preview_cancellation(_store().preview_cancel_all(caller.user_id, asked))
    return Response(body=cancel_preview_body(found))


def preview_position_change(request: Request) -> Response:
    """POST /api/v1/positions/{id}/change/preview: where a change would leave its levels, and what is made there."""
    from trading.edge.position_dialects import position_as_spoken, position_change
    from trading.edge.preview_dialects import change_preview_body
    from trading.previews.position_changes import preview_change

    caller, body = _previewer(request)
    with states_as_spoken(), position_as_spoken():
        asked = position_change(request, body).asked(parse_id(request.path_parameters["id"], "id"))
        found = preview_change(_store().preview_position_change(caller.user_id, asked))
    return Response(body=change_preview_body(found))


def get_order(request: Request) -> Response:
    """GET /api/v1/orders/{id}."""
    caller = _reader(request, "orders:read")
    order_id = parse_id(request.path_parameters["id"], "id")
    return Response(body=order_body(read_order(_store(), caller.user_id, order_id)))


def get_order_audit(request: Request) -> Response:
    """GET /api/v1/orders/{id}/audit: the own ones with orders:read, anybody's with audit:read or as compliance."""
    caller = _reader(request, None)
    any_owner = may_read_any_audit(caller.role, caller.permissions)
    if not any_owner:
        check_permission(caller.permissions, "orders:read")
    order_id = parse_id(request.path_parameters["id"], "id")
    return Response(body=audit_body(read_order_audit(_store(), caller.user_id, order_id, any_owner=any_owner)))


def post_cancel(request: Request) -> Response:
    """POST /api/v1/orders/{id}/cancel."""
    procedure = partial(orders.cancel_order, database())
    return _changed(request, cancel_entry, partial(cancel_order, procedure=procedure), canceled_body)


def post_cancel_all(request: Request) -> Response:
    """POST /api/v1/orders/cancel-all."""
    procedure = partial(orders.cancel_orders, database())
    return _changed(request, cancel_all_entry, partial(cancel_orders, procedure=procedure), all_canceled_body)


def patch_order(request: Request) -> Response:
    """PATCH /api/v1/orders/{id}."""
    procedure = partial(orders.replace_order, database())
    return _changed(request, replace_entry, partial(replace_order, procedure=procedure), replaced_body, reduces=False)


def post_close(request: Request) -> Response:
    """POST /api/v1/positions/{id}/close."""
    procedure = partial(orders.close_position, database())
    close = partial(close_position, procedure=procedure, start_routing=_routing_of(request))
    return _changed(request, close_entry, close, closed_body)


def patch_position(request: Request) -> Response:
    """PATCH /api/v1/positions/{id}."""
    from trading.edge.position_dialects import changed_body, position_as_spoken, position_change
    from trading.position_changes import change_position

    procedure = partial(positions.change_position, database())
    with position_as_spoken():
        return _changed(request, position_change, partial(change_position, procedure=procedure), changed_body)


def post_close_by(request: Request) -> Response:
    """POST /api/v1/positions/{id}/close-by."""
    from trading.edge.position_dialects import close_by_entry, closed_by_body

    procedure = partial(positions.close_by, database())
    close = partial(close_position, procedure=procedure, start_routing=_routing_of(request))
    return _changed(request, close_by_entry, close, closed_by_body)


def post_close_all(request: Request) -> Response:
    """POST /api/v1/positions/close-all."""
    # What no other route of this function needs.
    from trading.edge.position_dialects import close_all_entry, closings_body
    from trading.mass_closing import close_all

    change = admit_change(request, route_group="orders", permission="orders:write", reduces=True)
    body = request.json_if_any()
    closing = close_all(
        close_all_entry(request, body),
        change.origin,
        request_hash=hash_of_request(request.route_key, body),
        key_days=change.key_days,
        plan=partial(positions.plan_closes, database()),
        close=partial(positions.close_planned, database()),
        start_routing=_routing_of(request),
        wake_relay=change.wake_relay,
    )
    if closing.replayed:
        request.answer_headers["Idempotency-Replayed"] = "true"
    return Response(body=closings_body(closing, str(change.caller.user_id)))


def list_positions(request: Request) -> Response:
    """GET /api/v1/positions."""
    caller = _reader(request, "positions:read")
    asked = position_query(request.query)
    if asked.page is None:
        return Response(body=positions_body(_store().positions(caller.user_id, asked.account_id)))
    found = _store().position_page(
        caller.user_id,
        asked.account_id,
        with_open=asked.with_open,
        before=asked.page.before,
        limit=asked.page.limit,
    )
    return Response(body=position_page_body(found))


def get_position_summary(request: Request) -> Response:
    """GET /api/v1/positions/summary."""
    caller = _reader(request, "positions:read")
    held = _store().position_summary(caller.user_id, optional_id(request.query, "account_id"))
    return Response(body=position_summary_body(held))


def get_account(request: Request) -> Response:
    """GET /api/v1/account."""
    caller = _reader(request, "account:read")
    return Response(body=account_body(_store().account(caller.user_id, optional_id(request.query, "account_id"))))


def get_account_risk(request: Request) -> Response:
    """GET /api/v1/account/risk: exposure, value at risk and drawdown of one's own account."""
    caller = _reader(request, "account:read")
    account_id = optional_id(request.query, "account_id")
    return Response(body=_store().account_risk(caller.user_id, account_id))


def get_risk_settings(request: Request) -> Response:
    """GET /api/v1/risk/settings: what binds one's own account."""
    from trading.edge.risk_dialects import settings_body

    caller = admit(request, route_group="account", state_changing=False, permission="account:read")
    account_id = optional_id(request.query, "account_id")
    return Response(body=settings_body(_store().risk_settings(caller.user_id, account_id)))


def get_profile(request: Request) -> Response:
    """GET /api/user/profile."""
    caller = _reader(request, "account:read")
    return Response(body=profile_body(read_profile(_store(), caller.user_id), caller))


def list_ledger_entries(request: Request) -> Response:
    """GET /api/v1/account/ledger-entries: what moved the balance of one's own account."""
    caller = _reader(request, "account:read")
    page = ledger_page(request.query)
    account_id = optional_id(request.query, "account_id")
    found = _store().ledger(caller.user_id, account_id, before=page.before, limit=page.limit)
    return Response(body=ledger_body(found))


def get_csrf_token(request: Request) -> Response:
    """GET /functions/v1/csrf-token."""
    caller = admit(request, route_group="csrf", state_changing=False, permission=None)
    if caller.session_id is None:
        raise TradingError(
            ErrorCode.FORBIDDEN,
            "Only a browser session (a token with a sid claim) has a CSRF token; API clients need none.",
            {"field": "Authorization", "value": None, "constraint": "a token with a sid claim"},
        )
    made = make_csrf_token(csrf_secret(), caller.user_id, caller.session_id, datetime.now(UTC))
    return Response(body={"csrf_token": made.token, "expires_at": timestamp(made.expires_at)})


def _routing_of(request: Request) -> RouteStarter:
    return partial(start_routing, request_id=request.request_id)


def _changed[Entry](
    request: Request,
    read: Callable[[Request, Mapping[str, Any]], Entry],
    change_it: Callable[..., Execution],
    render: Callable[[Mapping[str, Any], str], object],
    *,
    reduces: bool = True,
) -> Response:
    """Admit the caller, read what is asked of what the path names, if anything, change it, tell the outcome."""
    change = admit_change(request, route_group="orders", permission="orders:write", reduces=reduces)
    subject = {name: parse_id(text, name) for name, text in request.path_parameters.items()}
    body = request.json_if_any()
    with states_as_spoken(), limit_as_sent(body):
        execution = change_it(
            *subject.values(),
            read(request, body),
            change.origin,
            request_hash=hash_of_request(request.route_key, body | {name: str(each) for name, each in subject.items()}),
            key_days=change.key_days,
            wake_relay=change.wake_relay,
        )
    tell_outcome(request, execution)
    return Response(body=render(execution.answer, str(change.caller.user_id)))


def _previewer(request: Request) -> tuple[Caller, Mapping[str, Any]]:
    from trading.edge.preview_dialects import refuse_key

    caller = admit(request, route_group="preview", state_changing=False, permission="orders:read")
    body = request.json_if_any()
    refuse_key(body)
    return caller, body


def _closes_previewed(found: "ClosePreview") -> Response:
    from trading.edge.preview_dialects import closes_body

    return Response(body=closes_body(found))


def _orders(request: Request, *, closed_only: bool) -> Response:
    caller = _reader(request, "orders:read")
    filters, page = order_query(request.query, closed_only=closed_only)
    found = _store().orders(caller.user_id, filters, before=page.before, limit=page.limit)
    return Response(body=orders_body(found))


def _reader(request: Request, permission: str | None) -> Caller:
    return admit(request, route_group="read", state_changing=False, permission=permission)


def _store() -> ReadingStore:
    return ReadingStore(database())


handler = http_handler(
    {
        "GET /functions/v1/csrf-token": get_csrf_token,
        "GET /api/v1/orders": list_orders,
        "POST /api/v1/orders/preview": preview_order,
        "POST /api/v1/orders/oco/preview": partial(preview_linked, "oco"),
        "POST /api/v1/orders/oto/preview": partial(preview_linked, "oto"),
        "POST /api/v1/orders/bracket/preview": partial(preview_linked, "bracket"),
        "POST /api/v1/orders/cancel-all": post_cancel_all,
        "GET /api/v1/orders/{id}": get_order,
        "PATCH /api/v1/orders/{id}": patch_order,
        "GET /api/v1/orders/{id}/audit": get_order_audit,
        "POST /api/v1/orders/{id}/cancel": post_cancel,
        "POST /api/v1/orders/{id}/cancel/preview": preview_cancel,
        "POST /api/v1/orders/cancel-all/preview": preview_cancel_all,
        "GET /api/v1/positions": list_positions,
        "GET /api/v1/positions/summary": get_position_summary,
        "PATCH /api/v1/positions/{id}": patch_position,
        "POST /api/v1/positions/{id}/close": post_close,
        "POST /api/v1/positions/{id}/close-by": post_close_by,
        "POST /api/v1/positions/close-all": post_close_all,
        "POST /api/v1/positions/{id}/close/preview": preview_close,
        "POST /api/v1/positions/{id}/close-by/preview": preview_close_by,
        "POST /api/v1/positions/close-all/preview": preview_close_all,
        "POST /api/v1/positions/{id}/change/preview": preview_position_change,
        "GET /api/orders/history": list_closed_orders,
        "GET /api/positions": list_positions,
        "GET /api/v1/account": get_account,
        "GET /api/user/profile": get_profile,
        "GET /api/v1/risk/settings": get_risk_settings,
        "GET /api/v1/account/ledger-entries": list_ledger_entries,
        "GET /api/v1/account/risk": get_account_risk,
    }
)
