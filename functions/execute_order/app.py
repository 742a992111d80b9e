"""POST /functions/v1/execute-order and POST /api/v1/orders: execute an order."""

from functools import partial

from trading.edge.envelope import dialect_of
from trading.edge.gate import admit
from trading.edge.http import Request, Response, http_handler
from trading.edge.order_dialects import execution_data, faults_as_sent, order_entry
from trading.execution import Origin, Routing, execute_order, hash_of_request
from trading.queue import notify_relay_unless_awake, start_routing
from trading.settings import settings
from trading.store.connection import database
from trading.store.instruments import instrument_catalogue
from trading.store.orders import accept_order, execute_order_atomic


def post_order(request: Request) -> Response:
    """Admit the caller, read the order, execute it or send it on; 200, or 201 under /api/v1, or the refusal."""
    caller = admit(request, route_group="orders", state_changing=True, permission="orders:write")
    dialect = dialect_of(request.path)
    body = request.json()
    with faults_as_sent(body):
        execution = execute_order(
            order_entry(request, body, dialect),
            Origin(caller.user_id, caller.email, request.source_ip, request.user_agent, request.request_id),
            request_hash=hash_of_request(request.route_key, body),
            key_days=settings().idempotency_key_days,
            instruments=instrument_catalogue(),
            procedure=partial(execute_order_atomic, database()),
            routing=Routing(
                partial(accept_order, database()),
                partial(start_routing, request_id=request.request_id),
                settings().venues,
            ),
            wake_relay=partial(
                notify_relay_unless_awake,
                relay_awake=caller.relay_awake,
                started_at=request.started_at,
                request_id=request.request_id,
            ),
        )
    if execution.replayed:
        request.answer_headers["Idempotency-Replayed"] = "true"
    if execution.refusal is not None:
        raise execution.refusal
    return Response(
        201 if dialect == "rest" else 200, execution_data(execution, dialect, trader_id=str(caller.user_id))
    )


handler = http_handler(
    {
        "POST /functions/v1/execute-order": post_order,
        "POST /api/v1/orders": post_order,
    }
)
