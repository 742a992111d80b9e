SET LOCAL ROLE trading_procedures;

-- Writes an order that rests, or whose rest ends, under its account's lock: order, audit, event, the stored answer.

-- The order that is asked for, with the prices that only orders other than market orders have.
CREATE OR REPLACE FUNCTION priced_order(request jsonb, p_account accounts, p_at timestamptz) RETURNS orders
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_order orders := requested_order(request, p_account, p_at);
BEGIN
    v_order.limit_price := (request ->> 'limit_price')::numeric;
    v_order.stop_price := (request ->> 'stop_price')::numeric;
    v_order.trail_amount := (request ->> 'trail_amount')::numeric;
    v_order.trail_percent := (request ->> 'trail_percent')::numeric;
    v_order.limit_offset := (request ->> 'limit_offset')::numeric;
    v_order.display_quantity := (request ->> 'display_quantity')::numeric;
    v_order.display_variance := (request ->> 'display_variance')::numeric;
    v_order.post_only := coalesce((request ->> 'post_only')::boolean, false);
    v_order.expires_at := (request ->> 'expires_at')::timestamptz;
    v_order.replaces_order_id := (request ->> 'replaces_order_id')::uuid;
    IF request ? 'conditions' THEN
        v_order.conditions := conditions_of(request -> 'conditions', NULL);
    END IF;
    v_order.linked_order_ids := '{}';
    v_order.held_quantity := 0;
    v_order.canceled_quantity := 0;
    v_order.position_size_check := true;
    v_order.version := 1;
    RETURN v_order;
END
$$;

-- Inserts every column of a row that priced_order began.
CREATE OR REPLACE FUNCTION insert_priced_order(p_order orders) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders SELECT p_order.*;
    IF p_order.client_order_id IS NOT NULL THEN
        INSERT INTO client_order_ids (user_id, account_id, client_order_id, order_id)
        VALUES (p_order.user_id, p_order.account_id, p_order.client_order_id, p_order.id);
    END IF;
END
$$;

-- An order that rests, or rested until now, as its events and its answers tell it.
CREATE OR REPLACE FUNCTION order_fact(p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'order_id', p_order.id, 'client_order_id', p_order.client_order_id, 'symbol', p_order.symbol,
        'side', p_order.side, 'order_type', p_order.order_type, 'quantity', p_order.quantity,
        'limit_price', p_order.limit_price, 'stop_price', p_order.stop_price,
        'time_in_force', p_order.time_in_force, 'status', p_order.status,
        'filled_quantity', p_order.filled_quantity, 'leaves_quantity', p_order.leaves_quantity,
        'average_price', with_places(p_order.average_price, coalesce(p_order.limit_price, p_order.stop_price)),
        'expires_at', utc_text(p_order.expires_at),
        'failure_code', p_order.failure_code, 'failure_reason', p_order.failure_reason
    ) || particular_fact(p_order);
END
$$;

-- What only some orders have: of one that has none of it, nothing.
CREATE OR REPLACE FUNCTION particular_fact(p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN is_trailing(p_order.order_type) THEN jsonb_build_object(
        'trail_amount', p_order.trail_amount, 'trail_percent', p_order.trail_percent,
        'limit_offset', p_order.limit_offset
    ) ELSE '{}' END || CASE WHEN p_order.display_quantity IS NOT NULL THEN jsonb_build_object(
        'display_quantity', p_order.display_quantity, 'display_variance', p_order.display_variance
    ) ELSE '{}' END || CASE WHEN p_order.post_only THEN jsonb_build_object(
        'post_only', true
    ) ELSE '{}' END || CASE WHEN p_order.active_at IS NOT NULL THEN jsonb_build_object(
        'active_at', utc_text(p_order.active_at)
    ) ELSE '{}' END || linked_fact(p_order) || conditions_fact(p_order);
END
$$;

-- The row of an order that waits for its price from now on, inserted.
CREATE OR REPLACE FUNCTION insert_resting_order(
    request jsonb, p_account accounts, p_terms order_terms, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := priced_order(request, p_account, p_at);
BEGIN
    v_order.status := 'new';
    v_order.leaves_quantity := v_order.quantity;
    -- They lie on the tick already: this gives them its places.
    v_order.limit_price := round_to_tick(v_order.limit_price, p_terms.tick_size);
    v_order.stop_price := round_to_tick(v_order.stop_price, p_terms.tick_size);
    IF is_timed(v_order.time_in_force) THEN
        SELECT t.active_at, t.ends_at INTO v_order.active_at, v_order.expires_at
        FROM time_of_order(v_order.time_in_force, p_terms.calendar, p_at) AS t;
    ELSIF v_order.order_type <> 'market' THEN
        v_order.trigger_watch := watch_of(v_order.order_type, v_order.side, v_order.status);
    END IF;
    v_order.trigger_price := trigger_level(v_order);
    IF v_order.time_in_force = 'day' THEN
        v_order.expires_at := trading_day_end(p_terms.calendar, p_at);
    END IF;
    IF v_order.conditions IS NOT NULL THEN
        v_order := held_for_conditions(v_order);
    END IF;
    PERFORM insert_priced_order(v_order);
    IF is_trailing(v_order.order_type) THEN
        PERFORM begin_trailing(v_order, p_terms);
    ELSIF v_order.conditions IS NOT NULL THEN
        PERFORM await_conditions(v_order);
    END IF;
    RETURN v_order;
END
$$;

-- What the audit says of it. p_fill holds the margin (NULL when it only reduces) and the commission that were found
-- free for it; neither is reserved.
CREATE OR REPLACE FUNCTION resting_entries(request jsonb, p_order orders, p_fill order_fill) RETURNS audit_entry[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY[
        submitted_entry(request),
        ROW('APPROVED', 'new', jsonb_build_object(
            'margin', p_fill.margin, 'commission', p_fill.commission, 'reduces', p_fill.margin IS NULL
        ) || jsonb_strip_nulls(jsonb_build_object(
            'expires_at', utc_text(p_order.expires_at), 'active_at', utc_text(p_order.active_at),
            'held_quantity', nullif(p_order.held_quantity, 0)
        )), NULL, NULL)::audit_entry
    ]
$$;

-- Whether the quote of now is one that it waits for; any is, once nothing holds a market order any more.
CREATE OR REPLACE FUNCTION is_touched_now(p_order orders, p_terms order_terms, p_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT (
            touches(p_order.trigger_watch, p_order.trigger_price, p_terms.bid, p_terms.ask)
            OR p_order.order_type = 'market' AND p_order.conditions IS NOT NULL AND p_order.held_quantity = 0
        )
        AND quote_is_fresh(p_terms, p_at)
        AND (p_terms.trade_always OR market_is_open(p_terms.calendar, p_at))
$$;

-- An order that rests from now on, unless quotes of now touch it or meet its conditions, or it may not rest.
CREATE OR REPLACE FUNCTION book_resting_order(
    request jsonb, p_account accounts, p_terms order_terms, p_fill order_fill, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := insert_resting_order(request, p_account, p_terms, p_at);
    v_entries audit_entry [] := resting_entries(request, v_order, p_fill);
    v_touched boolean := is_touched_now(v_order, p_terms, p_at);
BEGIN
    IF v_touched OR v_order.held_quantity > 0 OR v_order.time_in_force IN ('ioc', 'fok') THEN
        RETURN settle_at_once(request, p_account, v_order, p_terms, v_entries, v_touched, p_at);
    END IF;
    RETURN book_order_state(request, p_account, v_order, v_entries, p_at);
END
$$;

-- An order that is touched as it comes, or that may not rest: accepted, filled as far as the quote goes, and what may
-- not rest is canceled. One that is held is released if all its conditions are met. The answer tells where it ended.
CREATE OR REPLACE FUNCTION settle_at_once(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_entries audit_entry[], p_touched boolean,
    p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
    v_answer jsonb;
BEGIN
    PERFORM book_order_state(unkept(request), p_account, v_order, p_entries, p_at);
    IF v_order.held_quantity > 0 THEN
        v_order := meet_conditions_now(unkept(request), account_under_lock(p_account), v_order, p_at);
    ELSIF p_touched AND (v_order.time_in_force <> 'fok' OR venue_depth(p_terms) >= v_order.quantity) THEN
        v_order := act_on_touch(unkept(request), account_under_lock(p_account), v_order, p_terms, p_at);
    END IF;
    IF v_order.time_in_force IN ('ioc', 'fok') AND v_order.status IN ('new', 'partially_filled') THEN
        v_order := end_order(
            request, account_under_lock(p_account), v_order, 'canceled', NULL, 'It could not be filled at once', p_at
        );
    END IF;
    v_answer := settled_answer(account_under_lock(p_account), v_order, p_at);
    PERFORM keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, p_at
    );
    RETURN v_answer;
END
$$;

-- What the caller is told of an order that came to something in the call that placed it.
CREATE OR REPLACE FUNCTION settled_answer(p_account accounts, p_order orders, p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN order_fact(p_order) || jsonb_build_object(
        'outcome', p_order.status, 'account_id', p_account.id, 'created_at', utc_text(p_order.created_at),
        'sequence', told_last(p_account, p_order.id), 'transact_time', utc_text(p_at)
    ) || CASE
        WHEN p_order.status = 'filled' OR (p_order.status = 'canceled' AND p_order.filled_quantity > 0)
            THEN jsonb_build_object(
            'execution_price', with_places(
                p_order.average_price, coalesce(p_order.limit_price, p_order.stop_price, p_order.last_price)
            ),
            'position_id', p_order.position_id,
            'slippage', p_order.slippage, 'commission', p_order.commission,
            'margin', p_order.total_cost - p_order.commission, 'total_cost', p_order.total_cost,
            'currency', p_account.currency, 'transaction_id', p_order.transaction_id,
            'realized_pnl', (
                SELECT sum(f.realized_pnl) FROM fills AS f
                WHERE f.user_id = p_order.user_id AND f.order_id = p_order.id
            )
        )
        WHEN p_order.status = 'rejected' THEN jsonb_build_object(
            'code', p_order.failure_code, 'message', p_order.failure_reason, 'details', jsonb_build_object(
                'field', 'status', 'value', p_order.status, 'constraint', 'accepted at the price that touched it'
            )
        )
        ELSE '{}'
    END;
END
$$;

-- The sequence of the last event that tells of an order. What the order did to others may have been told after it.
CREATE OR REPLACE FUNCTION told_last(p_account accounts, p_order_id uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT v.sequence
    FROM events AS v
    WHERE v.user_id = p_account.user_id AND v.account_id = p_account.id
        AND v.payload @> jsonb_build_object('orders', jsonb_build_array(jsonb_build_object('order_id', p_order_id)))
    ORDER BY v.sequence DESC
    LIMIT 1
$$;

-- What follows an order's row into a state without a fill: audit, account, the event `order.` and the state's name, and
-- the answer that is kept under the request's key.
CREATE OR REPLACE FUNCTION book_order_state(
    request jsonb, p_account accounts, p_order orders, p_entries audit_entry[], p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_head bytea := append_audit(
        p_account, p_order.id, p_entries, p_at, CASE WHEN request ? 'ip_address' THEN request END
    );
    v_sequence bigint := p_account.last_sequence + 1;
    v_answer jsonb;
BEGIN
    UPDATE accounts SET
        last_sequence = v_sequence,
        audit_version = audit_version + cardinality(p_entries),
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, v_sequence, 'order.' || p_order.status,
        jsonb_build_object('orders', jsonb_build_array(order_fact(p_order))), request ->> 'request_id', p_at
    );
    v_answer := order_fact(p_order) || jsonb_build_object(
        'outcome', p_order.status, 'account_id', p_account.id, 'created_at', utc_text(p_order.created_at),
        'sequence', v_sequence, 'transact_time', utc_text(p_at)
    );
    PERFORM keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, p_at
    );
    RETURN v_answer;
END
$$;
