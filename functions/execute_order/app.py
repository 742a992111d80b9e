"""POST /functions/v1/execute-order and POST /api/v1/orders: execute an order, or let it rest.

POST /api/v1/orders/oco, /oto and /bracket: orders that depend on each other.
"""

from functools import partial
from typing import TYPE_CHECKING

from trading.edge.changes import admit_change, tell_outcome
from trading.edge.envelope import dialect_of
from trading.edge.http import Request, Response, http_handler
from trading.edge.order_dialects import execution_data, faults_as_sent, order_entry
from trading.execution import Routing, execute_order, hash_of_request
from trading.queue import start_routing
from trading.settings import settings
from trading.store.connection import database
from trading.store.instruments import instrument_catalogue
from trading.store.orders import accept_order, execute_order_atomic, place_linked_orders, place_order

if TYPE_CHECKING:
    from trading.linked_orders import LinkKind


def post_order(request: Request) -> Response:
    """Admit the caller, read the order, execute, place or route it; 200, or 201 under /api/v1, or the refusal."""
    change = admit_change(request, route_group="orders", permission="orders:write")
    dialect = dialect_of(request.path)
    body = request.json()
    with faults_as_sent(body):
        execution = execute_order(
            order_entry(request, body, dialect),
            change.origin,
            request_hash=hash_of_request(request.route_key, body),
            key_days=change.key_days,
            instruments=instrument_catalogue(),
            execute=partial(execute_order_atomic, database()),
            place=partial(place_order, database()),
            routing=Routing(
                partial(accept_order, database()),
                partial(start_routing, request_id=request.request_id),
                settings().venues,
            ),
            wake_relay=change.wake_relay,
        )
    tell_outcome(request, execution)
    return Response(
        201 if dialect == "rest" else 200, execution_data(execution, dialect, trader_id=str(change.caller.user_id))
    )


def post_linked(kind: "LinkKind", request: Request) -> Response:
    """Admit the caller, read the orders, place all of them or none; 201, or the refusal."""
    # What a single order does not need.
    from trading.edge.linked_dialects import linked_body, linked_entry, linked_faults_as_sent
    from trading.linked_orders import place_linked

    change = admit_change(request, route_group="orders", permission="orders:write")
    body = request.json()
    with linked_faults_as_sent(body):
        execution = place_linked(
            linked_entry(kind, request, body),
            change.origin,
            request_hash=hash_of_request(request.route_key, body),
            key_days=change.key_days,
            instruments=instrument_catalogue(),
            procedure=partial(place_linked_orders, database()),
            wake_relay=change.wake_relay,
        )
    tell_outcome(request, execution)
    return Response(201, linked_body(execution.answer, str(change.caller.user_id)))


handler = http_handler(
    {
        "POST /functions/v1/execute-order": post_order,
        "POST /api/v1/orders": post_order,
        "POST /api/v1/orders/oco": partial(post_linked, "oco"),
        "POST /api/v1/orders/oto": partial(post_linked, "oto"),
        "POST /api/v1/orders/bracket": partial(post_linked, "bracket"),
    }
)
