SET LOCAL ROLE trading_procedures;

-- Closes a position or a part of it at the market, by an order of its own that can only reduce: never refused for
-- margin, and open to who may not trade.
-- request {version: 1, user_id, position_id, quantity? (the whole), max_slippage?, idempotency_key, request_hash,
--   idempotency_key_days, request_id?, ip_address?, user_agent?, email?}
-- -> {replayed, answer}: as of execute_order_atomic; a filled one also has `position`, as the fill left it:
--   {position_id, symbol, side, quantity, entry_price, current_price, unrealized_pnl, margin_used, realized_pnl,
--   status}. One that is held at a venue is closed there: outcome pending_new, as of accept_order.
-- Raises TR001 no such position, TR003 key reused, TR004 no fresh price, TR006 a value out of its bounds, TR010 not
-- open any more, or an order that closes it is on its way to a venue; then nothing is kept.
CREATE OR REPLACE FUNCTION close_position(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_position_id uuid := (request ->> 'position_id')::uuid;
    v_account_id uuid := account_of_position(v_user_id, v_position_id, 'id');
    v_begun record;
    v_answer jsonb;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(request, v_account_id);
    v_answer := coalesce(
        v_begun.answer, execute_closing_order(request, v_begun.account, v_position_id, clock_timestamp())
    );
    -- The event never changes, so that a repeat is told the same.
    RETURN jsonb_build_object('replayed', v_begun.answer IS NOT NULL, 'answer', v_answer || coalesce((
        SELECT jsonb_build_object('position', v.payload -> 'positions' -> 0)
        FROM events AS v
        WHERE v.user_id = v_user_id AND v.account_id = v_account_id
            AND v.sequence = (v_answer ->> 'sequence')::bigint AND v.payload ? 'positions'
    ), '{}'));
END
$$;

-- The closing order under its account's lock, at p_at: judged, priced, booked.
CREATE OR REPLACE FUNCTION execute_closing_order(
    request jsonb, p_account accounts, p_position_id uuid, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_position positions;
    v_order jsonb;
    v_quantity numeric;
    v_terms order_terms;
    v_open boolean;
    v_fill order_fill;
    v_refusal jsonb;
BEGIN
    v_position := position_to_close(p_account, p_position_id);
    v_order := closing_order(request, v_position);
    v_quantity := (v_order ->> 'quantity')::numeric;
    SELECT * INTO v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = v_position.symbol;
    IF NOT FOUND THEN
        -- Its instrument is not traded now, so nobody quotes it.
        PERFORM refuse_stale_quote(v_position.symbol);
    END IF;
    PERFORM check_closing_values(v_order, v_terms, v_position);
    v_open := market_is_open(v_terms.calendar, p_at);
    v_refusal := coalesce(
        eligibility_refusal(p_account, v_terms, true, v_open, p_at),
        larger_refusal(v_order ->> 'side', v_quantity, v_position.quantity)
    );
    IF v_refusal IS NOT NULL THEN
        RETURN book_denied_order(v_order, p_account, v_terms, v_refusal, p_at);
    END IF;

    IF NOT quote_is_fresh(v_terms, p_at) THEN
        PERFORM refuse_stale_quote(v_terms.symbol);
    END IF;
    v_fill := price_order(
        v_terms, v_order ->> 'side', v_quantity, p_account.id || ':' || (v_order ->> 'idempotency_key'), NOT v_open
    );
    IF v_fill.slippage > (v_order ->> 'max_slippage')::numeric THEN
        RETURN book_denied_order(v_order, p_account, v_terms, slippage_refusal(v_order, v_fill), p_at);
    END IF;
    v_fill.commission := charged_commission(p_account, v_terms, v_quantity, p_at);
    RETURN close_or_send(v_order, p_account, v_terms, v_fill, v_position, p_at);
END
$$;

CREATE OR REPLACE FUNCTION position_to_close(p_account accounts, p_position_id uuid) RETURNS positions
LANGUAGE plpgsql AS $$
DECLARE
    v_position positions;
BEGIN
    SELECT * INTO STRICT v_position FROM positions AS p
    WHERE p.user_id = p_account.user_id AND p.id = p_position_id
    FOR NO KEY UPDATE;
    PERFORM check_position_open(v_position);
    PERFORM check_none_in_flight(p_account, v_position);
    RETURN v_position;
END
$$;

CREATE OR REPLACE FUNCTION check_none_in_flight(p_account accounts, p_position positions) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_refusal CONSTANT jsonb := in_flight_refusal(p_account, p_position);
BEGIN
    IF v_refusal IS NOT NULL THEN
        RAISE EXCEPTION '%', v_refusal ->> 'message'
        USING ERRCODE = 'TR010', DETAIL = (v_refusal -> 'details')::text;
    END IF;
END
$$;

-- What a venue is to close cannot be closed here as well.
CREATE OR REPLACE FUNCTION in_flight_refusal(p_account accounts, p_position positions) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF lots_in_flight(p_account, p_position) = 0 THEN
        RETURN NULL;
    END IF;
    RETURN refusal(
        'CONFLICT', 'An order that closes this position is on its way to its venue: wait for what becomes of it.',
        'status', 'in flight', 'no closing order on its way'
    );
END
$$;

CREATE OR REPLACE FUNCTION check_position_open(p_position positions) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_position.status <> 'open' THEN
        RAISE EXCEPTION 'The position is closed already: there is nothing left to do.'
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'status', 'value', p_position.status, 'constraint', 'an open position'
        )::text;
    END IF;
END
$$;

-- The order that closes: only what its caller may say is taken from the request. The audit tells by it which position
-- was meant.
CREATE OR REPLACE FUNCTION closing_order(request jsonb, p_position positions) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'position_id', p_position.id, 'symbol', p_position.symbol, 'order_type', 'market',
        'side', CASE p_position.side WHEN 'long' THEN 'sell' ELSE 'buy' END,
        'quantity', coalesce((request ->> 'quantity')::numeric, p_position.quantity),
        'max_slippage', (request ->> 'max_slippage')::numeric, 'time_in_force', 'ioc', 'reduce_only', true,
        'idempotency_key', request -> 'idempotency_key', 'request_hash', request -> 'request_hash',
        'idempotency_key_days', request -> 'idempotency_key_days', 'request_id', request -> 'request_id',
        'ip_address', request -> 'ip_address', 'user_agent', request -> 'user_agent', 'email', request -> 'email'
    ));
END
$$;

-- The bounds of a quantity hold for a part; the whole can always be closed, however it came about.
CREATE OR REPLACE FUNCTION check_closing_values(
    p_order jsonb, p_terms order_terms, p_position positions
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_quantity numeric := (p_order ->> 'quantity')::numeric;
BEGIN
    IF v_quantity <> p_position.quantity AND (
        NOT v_quantity BETWEEN p_terms.quantity_min AND p_terms.quantity_max
        OR v_quantity % p_terms.quantity_step <> 0
    ) THEN
        PERFORM refuse_value('quantity', v_quantity::text, format(
            '%s to %s in steps of %s, or left out to close the whole', p_terms.quantity_min, p_terms.quantity_max,
            p_terms.quantity_step
        ));
    END IF;
    IF NOT (p_order ->> 'max_slippage')::numeric BETWEEN 0 AND 1e18 THEN
        PERFORM refuse_value('max_slippage', p_order ->> 'max_slippage', 'at least 0');
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION close_position(jsonb) TO function_trader;
