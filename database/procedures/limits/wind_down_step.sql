SET LOCAL ROLE trading_procedures;

-- Working off a wind-down, account by account, by whoever executes triggers.

-- Take a lease on up to `limit` accounts that are due, the longest waiting first. request {version: 1, holder, limit,
-- lease_ms} -> [{wind_down_id, user_id, account_id, fencing}]
CREATE OR REPLACE FUNCTION claim_wind_downs(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_claimed jsonb;
BEGIN
    PERFORM check_request_version(request);
    WITH free AS MATERIALIZED (
        SELECT w.user_id, w.account_id, w.wind_down_id
        FROM wind_down_accounts AS w
        WHERE w.done_at IS NULL AND w.due_at <= v_at AND (w.lease_expires_at IS NULL OR w.lease_expires_at <= v_at)
        ORDER BY w.due_at, w.account_id
        LIMIT (request ->> 'limit')::integer
        FOR UPDATE SKIP LOCKED
    ), leased AS (
        UPDATE wind_down_accounts AS w SET
            lease_holder = (request ->> 'holder')::uuid,
            lease_fencing = w.lease_fencing + 1,
            lease_expires_at = v_at + (request ->> 'lease_ms')::integer * interval '1 millisecond',
            attempts = w.attempts + 1,
            -- Behind the others, should nothing come of it.
            due_at = v_at
        FROM free AS f
        WHERE w.user_id = f.user_id AND w.account_id = f.account_id AND w.wind_down_id = f.wind_down_id
        RETURNING w.*
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'wind_down_id', l.wind_down_id, 'user_id', l.user_id, 'account_id', l.account_id, 'fencing', l.lease_fencing
    ) ORDER BY l.due_at, l.account_id), '[]') INTO v_claimed
    FROM leased AS l;
    RETURN v_claimed;
END
$$;

-- One step, one transaction: first all working orders of the scope are canceled; then, to flatten, one position is
-- closed at the market, the oldest that can be closed now. One that is held at a venue is closed there: its order is
-- sent, and the account is done when nothing of the scope is open or in flight any more. What somebody else has done
-- meanwhile is not done again.
-- request {version: 1, wind_down_id, user_id, account_id, holder, fencing, lease_ms, request_id?}
-- -> {state, orders_canceled, positions_closed, positions_sent, order_id, sequence: the event's, NULL without one}
--   order_id: of a closing order that has still to be handed to its venue, else NULL
--   more: there may be more to do; the lease is renewed. lost: another worker has the lease. done: nothing is left, or
--   trading is active there again: what is left then, or was opened since, is nobody's to close.
--   waiting: what is left cannot be closed now, or is at a venue, and is due again in a minute.
CREATE OR REPLACE FUNCTION wind_down_step(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_at timestamptz;
    v_work wind_down_accounts;
    v_wind_down wind_downs;
    v_canceled jsonb := '[]';
    v_closed jsonb;
    v_sent boolean;
    v_stopped boolean;
    v_state text := 'more';
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    v_at := clock_timestamp();
    SELECT * INTO v_work FROM wind_down_accounts AS w
    WHERE w.user_id = v_account.user_id AND w.account_id = v_account.id
        AND w.wind_down_id = (request ->> 'wind_down_id')::uuid AND w.done_at IS NULL
        AND w.lease_holder = (request ->> 'holder')::uuid AND w.lease_fencing = (request ->> 'fencing')::bigint
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN '{"state": "lost", "orders_canceled": 0, "positions_closed": 0, "positions_sent": 0, "order_id": null,
            "sequence": null}';
    END IF;
    SELECT * INTO STRICT v_wind_down FROM wind_downs AS w WHERE w.id = v_work.wind_down_id;
    v_stopped := is_stopped(v_account, v_wind_down);
    IF v_stopped THEN
        v_canceled := cancel_for_wind_down(request, v_account, v_wind_down, v_at);
        IF v_canceled = '[]' AND v_wind_down.action = 'flatten' THEN
            v_closed := close_for_wind_down(request, v_account, v_wind_down, v_at);
        END IF;
    END IF;
    IF v_canceled = '[]' AND v_closed IS NULL THEN
        v_state := CASE WHEN v_stopped AND left_to_flatten(v_account, v_wind_down) THEN 'waiting' ELSE 'done' END;
    END IF;
    v_sent := coalesce(v_closed ->> 'outcome' = 'pending_new', false);
    UPDATE wind_down_accounts AS w SET
        orders_canceled = w.orders_canceled + jsonb_array_length(v_canceled),
        positions_closed = w.positions_closed + (v_closed IS NOT NULL AND NOT v_sent)::integer,
        positions_sent = w.positions_sent + v_sent::integer,
        done_at = CASE v_state WHEN 'done' THEN v_at END,
        due_at = CASE v_state WHEN 'waiting' THEN v_at + interval '1 minute' ELSE w.due_at END,
        lease_expires_at = CASE v_state
            WHEN 'more' THEN v_at + (request ->> 'lease_ms')::integer * interval '1 millisecond'
        END
    WHERE w.user_id = v_work.user_id AND w.account_id = v_work.account_id AND w.wind_down_id = v_work.wind_down_id;
    RETURN jsonb_build_object(
        'state', v_state, 'orders_canceled', jsonb_array_length(v_canceled),
        'positions_closed', (v_closed IS NOT NULL AND NOT v_sent)::integer, 'positions_sent', v_sent::integer,
        'order_id', CASE WHEN v_sent THEN v_closed -> 'order_id' END, 'sequence', (
            SELECT nullif(a.last_sequence, v_account.last_sequence) FROM accounts AS a
            WHERE a.user_id = v_account.user_id AND a.id = v_account.id
        )
    );
END
$$;

-- Whether trading in the scope, or on the platform, is still not active.
CREATE OR REPLACE FUNCTION is_stopped(p_account accounts, p_wind_down wind_downs) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN 'active' <> ANY (ARRAY[
        (SELECT s.trading_state FROM platform_settings AS s),
        CASE p_wind_down.scope
            WHEN 'account' THEN p_account.trading_state
            WHEN 'symbol' THEN (SELECT i.trading_state FROM instruments AS i WHERE i.symbol = p_wind_down.symbol)
            ELSE 'active'
        END
    ]);
END
$$;

-- Cancels the working orders of the scope, with audit and one event; the orders as the event tells them.
CREATE OR REPLACE FUNCTION cancel_for_wind_down(
    request jsonb, p_account accounts, p_wind_down wind_downs, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order_ids uuid [] := orders_to_call_off(p_account, p_wind_down.symbol);
    v_canceled jsonb;
BEGIN
    IF v_order_ids = '{}' THEN
        RETURN '[]';
    END IF;
    v_canceled := cancel_audited_orders(
        p_account, v_order_ids, jsonb_build_object('actor', 'platform', 'wind_down_id', p_wind_down.id),
        p_wind_down.reason, p_at, NULL
    );
    UPDATE accounts SET last_sequence = last_sequence + 1 WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'orders.canceled', jsonb_build_object('orders', v_canceled),
        request ->> 'request_id', p_at
    );
    PERFORM settle_canceled(request, p_account, v_order_ids, p_at);
    RETURN v_canceled;
END
$$;

DO $$
BEGIN
    IF to_regprocedure('close_for_wind_down(jsonb, accounts, wind_downs, timestamptz)') IS NOT NULL THEN
        DROP FUNCTION close_for_wind_down(jsonb, accounts, wind_downs, timestamptz);
    END IF;
END
$$;
-- Closes the oldest position of the scope whose market is open, whose quote is fresh and whose P&L can be converted
-- now, or what is left of it to close; the answer of close_or_send, NULL for none.
CREATE OR REPLACE FUNCTION close_for_wind_down(
    request jsonb, p_account accounts, p_wind_down wind_downs, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_position positions;
    v_terms order_terms;
    v_fill order_fill;
    v_side text;
    v_quantity numeric;
BEGIN
    SELECT p.* INTO v_position
    FROM positions AS p
    INNER JOIN order_terms AS t
        ON p.user_id = t.user_id AND p.account_id = t.account_id AND p.symbol = t.symbol
    WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
        AND (p_wind_down.symbol IS NULL OR p.symbol = p_wind_down.symbol)
        AND (t.trade_always OR market_is_open(t.calendar, p_at))
        AND quote_is_fresh(t, p_at)
        -- What can be paid can be earned: it is the same quotes that convert both.
        AND fresh_conversion_fraction(t.quote_currency, p_account.currency, false, p_at) IS NOT NULL
        AND lots_to_close(p_account, p, p_at) > 0
    ORDER BY p.id
    LIMIT 1
    FOR NO KEY UPDATE OF p;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO STRICT v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = v_position.symbol;
    v_side := CASE v_position.side WHEN 'long' THEN 'sell' ELSE 'buy' END;
    v_quantity := lots_to_close(p_account, v_position, p_at);
    v_fill := price_order(
        v_terms, v_side, v_quantity, p_account.id || ':' || v_position.id, NOT market_is_open(v_terms.calendar, p_at)
    );
    v_fill.commission := charged_commission(p_account, v_terms, v_quantity, p_at);
    RETURN close_or_send(jsonb_build_object(
        'symbol', v_position.symbol, 'order_type', 'market', 'side', v_side, 'quantity', v_quantity,
        'time_in_force', 'ioc', 'reduce_only', true, 'component_name', 'wind_down', 'actor', 'platform',
        'position_id', v_position.id, 'request_id', request -> 'request_id',
        'notice', jsonb_build_object('reason', p_wind_down.reason)
    ), p_account, v_terms, v_fill, v_position, p_at);
END
$$;

-- Whether something of the scope is open, or may still be opened by what is in flight.
CREATE OR REPLACE FUNCTION left_to_flatten(p_account accounts, p_wind_down wind_downs) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN p_wind_down.action = 'flatten' AND (EXISTS (
        SELECT FROM positions AS p
        WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
            AND (p_wind_down.symbol IS NULL OR p.symbol = p_wind_down.symbol)
    ) OR EXISTS (
        SELECT FROM venue_routes AS r
        INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
        WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done'
            AND (p_wind_down.symbol IS NULL OR o.symbol = p_wind_down.symbol)
    ));
END
$$;

GRANT EXECUTE ON FUNCTION claim_wind_downs(jsonb) TO function_triggers;
GRANT EXECUTE ON FUNCTION wind_down_step(jsonb) TO function_triggers;
