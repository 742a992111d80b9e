SET LOCAL ROLE trading_procedures;

-- Cancels a working order at its owner's wish: order, audit, event and stored answer in one transaction. Anybody may
-- cancel, also who may not trade; what must stay is only the stop loss that an account's limits require.
-- request {version: 1, user_id, order_id, idempotency_key, request_hash, idempotency_key_days, request_id?,
--   ip_address?, user_agent?, email?}
-- -> {replayed, answer: {outcome: 'canceled', order_id, account_id, client_order_id, symbol, side, order_type,
--   quantity, limit_price, stop_price, time_in_force, status, filled_quantity, leaves_quantity, average_price,
--   created_at, sequence, transact_time}}
-- Raises TR001 no such order, TR003 key reused, TR006 no key, TR009 not in a state that can be canceled, TR015 a stop
-- loss that is required; then nothing is kept.
CREATE OR REPLACE FUNCTION cancel_order(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_order_id uuid := (request ->> 'order_id')::uuid;
    v_begun record;
    v_order orders;
    v_answer jsonb;
    v_at timestamptz;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(request, account_of_order(v_user_id, v_order_id));
    IF v_begun.answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_begun.answer);
    END IF;
    v_at := clock_timestamp();
    PERFORM refuse_required_exit(v_user_id, v_order_id);
    SELECT * INTO v_order FROM cancel_order_rows(v_begun.account, ARRAY[v_order_id], v_at);
    IF v_order.id IS NULL THEN
        PERFORM refuse_cancellation(v_user_id, v_order_id);
    END IF;
    v_answer := book_order_state(
        request, v_begun.account, v_order, ARRAY[ROW('CANCELED', 'canceled', jsonb_build_object(
            'filled_quantity', v_order.filled_quantity, 'idempotency_key', request ->> 'idempotency_key',
            'request_id', request ->> 'request_id'
        ), 'User requested cancellation', NULL)::audit_entry], v_at
    );
    PERFORM settle_linked(request, v_begun.account, v_order, 0, v_at);
    RETURN jsonb_build_object('replayed', false, 'answer', v_answer);
END
$$;

-- Raises TR015 for a stop loss that is required.
CREATE OR REPLACE FUNCTION refuse_required_exit(p_user_id uuid, p_order_id uuid) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM refuse_limit(
        'stop_loss_required', 'status', o.status, 'required',
        'Its position needs this stop loss. Set one on the position first, or close it.'
    )
    FROM orders AS o
    WHERE o.user_id = p_user_id AND o.id = p_order_id AND is_required_exit(o);
END
$$;

-- Whether an order is the stop loss of a bracket whose position is open, has none of its own, and must have one.
CREATE OR REPLACE FUNCTION is_required_exit(p_order orders) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_order.contingency = 'bracket_exit' AND p_order.stop_price IS NOT NULL
        AND p_order.status IN ('new', 'triggered', 'partially_filled')
        AND EXISTS (
            SELECT FROM effective_limits AS l
            WHERE l.user_id = p_order.user_id AND l.account_id = p_order.account_id AND l.stop_loss_required
        )
        AND EXISTS (
            SELECT FROM orders AS e
            INNER JOIN positions AS p ON e.user_id = p.user_id AND e.position_id = p.id
            WHERE e.user_id = p_order.user_id AND e.id = p_order.parent_order_id
                AND p.status = 'open' AND p.stop_loss IS NULL
        )
$$;

-- The account that an order of the user is of; TR001 without such an order.
CREATE OR REPLACE FUNCTION account_of_order(p_user_id uuid, p_order_id uuid) RETURNS uuid
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_account_id uuid;
BEGIN
    SELECT o.account_id INTO v_account_id FROM orders AS o WHERE o.user_id = p_user_id AND o.id = p_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'You have no order with this id. GET /api/v1/orders lists yours.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'id', 'value', p_order_id, 'constraint', 'an order of yours'
        )::text;
    END IF;
    RETURN v_account_id;
END
$$;

-- Says in which state the order is, and what can be done instead.
CREATE OR REPLACE FUNCTION refuse_cancellation(p_user_id uuid, p_order_id uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_status text;
BEGIN
    SELECT o.status INTO STRICT v_status FROM orders AS o WHERE o.user_id = p_user_id AND o.id = p_order_id;
    RAISE EXCEPTION '%', CASE v_status
        WHEN 'filled' THEN 'The order is filled and cannot be canceled. To undo it, close its position.'
        WHEN 'pending_new' THEN 'The order is on its way to its venue. Cancel it when it works there.'
        WHEN 'canceled' THEN 'The order is canceled already: there is nothing left to do.'
        ELSE 'The order does not work any more, so there is nothing to cancel.'
    END
    USING ERRCODE = 'TR009', DETAIL = jsonb_build_object(
        'field', 'status', 'value', v_status, 'constraint', 'an order that works'
    )::text;
END
$$;

GRANT EXECUTE ON FUNCTION cancel_order(jsonb) TO function_trader;
