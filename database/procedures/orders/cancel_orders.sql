SET LOCAL ROLE trading_procedures;

-- Cancels the working orders of an account, all or those that the filters leave, at their owner's wish: orders, audit,
-- one event and the stored answer in one transaction. The oldest go first, at most c_orders_max of them; a call with
-- another key goes on. What is in flight to a venue, and a stop loss that is required, stays and is not counted.
-- Anybody may, also who may not trade.
-- request {version: 1, user_id, account_id?, symbol?, side?, order_type?, idempotency_key, request_hash,
--   idempotency_key_days, request_id?, ip_address?, user_agent?, email?}
-- -> {replayed, answer: {outcome: 'canceled', account_id, canceled: [order_fact with created_at], left: how many still
--   work, sequence: NULL where none was canceled, transact_time}}
-- Raises TR001 no such account, TR002 no such symbol, TR003 key reused, TR006 no key, or which account of several.
CREATE OR REPLACE FUNCTION cancel_orders(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_begun record;
    v_account accounts;
    v_at timestamptz;
    v_found record;
    v_canceled jsonb;
    v_sequence bigint;
    v_answer jsonb;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(request, resolve_account(v_user_id, (request ->> 'account_id')::uuid));
    IF v_begun.answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_begun.answer);
    END IF;
    v_account := v_begun.account;
    v_at := clock_timestamp();
    PERFORM check_known_symbol(request ->> 'symbol');
    SELECT * INTO v_found FROM orders_to_cancel(request, v_account);
    v_canceled := cancel_audited_orders(v_account, v_found.order_ids, jsonb_build_object(
        'idempotency_key', request ->> 'idempotency_key', 'request_id', request ->> 'request_id'
    ), 'User requested cancellation', v_at, request);
    IF v_canceled <> '[]' THEN
        UPDATE accounts SET last_sequence = last_sequence + 1
        WHERE user_id = v_account.user_id AND id = v_account.id;
        v_sequence := append_event(
            v_account, v_account.last_sequence + 1, 'orders.canceled', jsonb_build_object('orders', v_canceled),
            request ->> 'request_id', v_at
        );
        PERFORM settle_canceled(request, v_account, v_found.order_ids, v_at);
    END IF;
    v_answer := jsonb_build_object(
        'outcome', 'canceled', 'account_id', v_account.id, 'canceled', v_canceled,
        'left', v_found.working - jsonb_array_length(v_canceled), 'sequence', v_sequence,
        'transact_time', utc_text(v_at)
    );
    RETURN jsonb_build_object('replayed', false, 'answer', keep_answer(
        v_account, request ->> 'idempotency_key', request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, v_at
    ));
END
$$;

-- A filter by a symbol that there never was fits nothing, and is a mistake: nobody is to believe that all is done. NULL
-- filters nothing; what is not traded any more is known.
CREATE OR REPLACE FUNCTION check_known_symbol(p_symbol text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_symbol IS NOT NULL AND NOT EXISTS (SELECT FROM instruments AS i WHERE i.symbol = p_symbol) THEN
        RAISE EXCEPTION 'There is no instrument %. Check the spelling of symbol.', left(p_symbol, 100)
        USING ERRCODE = 'TR002', DETAIL = jsonb_build_object(
            'field', 'symbol', 'value', left(p_symbol, 100), 'constraint', 'a known symbol'
        )::text;
    END IF;
END
$$;

-- Those that one call cancels, how many that work fit the filters, and how many that are in flight do.
DROP FUNCTION IF EXISTS orders_to_cancel(jsonb, accounts);
CREATE FUNCTION orders_to_cancel(
    request jsonb, p_account accounts, OUT order_ids uuid[], OUT working bigint, OUT in_flight bigint
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- What one transaction locks and one event tells.
    c_orders_max CONSTANT integer := 500;
BEGIN
    SELECT
        coalesce((array_agg(o.id ORDER BY o.id) FILTER (WHERE o.status <> 'pending_new'))[:c_orders_max], '{}'),
        count(*) FILTER (WHERE o.status <> 'pending_new'),
        count(*) FILTER (WHERE o.status = 'pending_new')
    INTO order_ids, working, in_flight
    FROM orders AS o
    WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
        AND o.status IN ('pending_new', 'new', 'triggered', 'partially_filled')
        AND (request ->> 'symbol' IS NULL OR o.symbol = request ->> 'symbol')
        AND (request ->> 'side' IS NULL OR o.side = request ->> 'side')
        AND (request ->> 'order_type' IS NULL OR o.order_type = request ->> 'order_type')
        AND NOT is_required_exit(o);
END
$$;

GRANT EXECUTE ON FUNCTION cancel_orders(jsonb) TO function_trader;

-- What refuses a closing of many positions, or cancels, judges its preview.
GRANT EXECUTE ON FUNCTION check_known_symbol(text) TO trading_readers;
GRANT EXECUTE ON FUNCTION orders_to_cancel(jsonb, accounts) TO trading_readers;
