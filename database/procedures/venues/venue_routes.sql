SET LOCAL ROLE trading_procedures;

-- The way of an order to its venue: who talks to the venue about it, and what came of each attempt. An attempt changes
-- no state of the order; its fills and its end do (book_venue_fill.sql, reject_venue_order.sql).

-- Take a lease on orders that are not settled: those named, else those that are due, the longest waiting first.
--
-- request {version: 1, holder, orders: [{user_id, order_id}] or null, limit, lease_ms}
-- -> [{user_id, order_id, account_id, venue, symbol, side, order_type, time_in_force, quantity, status,
--      worst_price, state, attempts, submitted_ms_ago, told, stopped, fencing}]
-- `stopped`: it would add exposure, and that is not allowed by the trading states any more.
-- `state` is the one before this lease; an order that was `new` counts as submitted from here on, because who dies now
-- may have sent it. An order that another holder has is left out, and so is a settled one.
-- A call that is repeated after a lost answer finds its own leases until they expire; nothing is lost.
CREATE OR REPLACE FUNCTION claim_venue_orders(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_free venue_routes [];
    v_claimed jsonb;
BEGIN
    PERFORM check_request_version(request);
    IF request ->> 'orders' IS NULL THEN
        v_free := ARRAY(
            SELECT r
            FROM venue_routes AS r
            WHERE r.state <> 'done' AND r.due_at <= v_at AND (r.lease_expires_at IS NULL OR r.lease_expires_at <= v_at)
            ORDER BY r.due_at
            LIMIT (request ->> 'limit')::integer
            FOR UPDATE SKIP LOCKED
        );
    ELSE
        v_free := ARRAY(
            SELECT r
            FROM jsonb_to_recordset(request -> 'orders') AS n (user_id uuid, order_id uuid)
            INNER JOIN venue_routes AS r ON n.user_id = r.user_id AND n.order_id = r.order_id
            WHERE r.state <> 'done' AND (r.lease_expires_at IS NULL OR r.lease_expires_at <= v_at)
            LIMIT (request ->> 'limit')::integer
            FOR UPDATE OF r SKIP LOCKED
        );
    END IF;
    WITH leased AS (
        UPDATE venue_routes AS r SET
            state = CASE r.state WHEN 'new' THEN 'unknown' ELSE r.state END,
            attempts = greatest(r.attempts, 1),
            submitted_at = coalesce(r.submitted_at, v_at),
            lease_holder = (request ->> 'holder')::uuid,
            lease_fencing = r.lease_fencing + 1,
            lease_expires_at = v_at + (request ->> 'lease_ms')::integer * interval '1 millisecond',
            -- Behind the others: an order that ends every run it is in holds up no other.
            due_at = v_at + (request ->> 'lease_ms')::integer * interval '1 millisecond',
            updated_at = v_at
        FROM unnest(v_free) AS f
        WHERE r.user_id = f.user_id AND r.order_id = f.order_id
        RETURNING r.*, f.state AS state_before
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'user_id', l.user_id, 'order_id', l.order_id, 'account_id', l.account_id, 'venue', l.venue,
        'symbol', o.symbol, 'side', o.side, 'order_type', o.order_type, 'time_in_force', o.time_in_force,
        'quantity', o.quantity::text, 'status', o.status,
        'worst_price', l.worst_price::text, 'state', l.state_before, 'attempts', l.attempts,
        'submitted_ms_ago', floor(extract(EPOCH FROM v_at - l.submitted_at) * 1000)::bigint,
        'told', l.told_at IS NOT NULL, 'stopped', l.adds_exposure AND NOT (
            SELECT p.trading_state = 'active' AND i.trading_state = 'active' AND a.trading_state = 'active'
            FROM platform_settings AS p
            CROSS JOIN instruments AS i
            CROSS JOIN accounts AS a
            WHERE i.symbol = o.symbol AND a.user_id = l.user_id AND a.id = l.account_id
        ), 'fencing', l.lease_fencing
    ) ORDER BY l.due_at), '[]') INTO v_claimed
    FROM leased AS l
    INNER JOIN orders AS o ON l.user_id = o.user_id AND l.order_id = o.id;
    RETURN v_claimed;
END
$$;

-- What came of talking to the venue, in the audit; the order's state stays. The lease is renewed.
--
-- request {version: 1, user_id, order_id, holder, fencing, lease_ms, action: EXECUTED | RECOVERED, retry_attempt,
--   error_code?, step: submit | look_up, venue_order_id?, unresolved?, request_id?}
-- EXECUTED without an error: the venue took the order. With one (TIMEOUT, UNAVAILABLE): whether it did is not known.
-- RECOVERED: known again after an attempt whose outcome was not. `unresolved`: it will be looked up later; the trader
-- is told so by an event, once an order.
-- -> {recorded, sequence}; not recorded where the lease has gone to another holder or the order is settled. Repeating
-- it records nothing twice: action and retry_attempt name an attempt. `sequence` is that of the event, else NULL.
CREATE OR REPLACE FUNCTION record_venue_attempt(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_order orders;
    v_route venue_routes;
    v_at timestamptz;
    v_tell boolean;
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account_of_order(request);
    v_at := clock_timestamp();
    SELECT * INTO STRICT v_order FROM orders
    WHERE user_id = v_account.user_id AND id = (request ->> 'order_id')::uuid FOR NO KEY UPDATE;
    v_route := lock_route(v_order);
    IF v_route.state = 'done' OR v_route.lease_fencing <> (request ->> 'fencing')::bigint
        OR v_route.lease_holder <> (request ->> 'holder')::uuid THEN
        RETURN '{"recorded": false, "sequence": null}';
    END IF;
    UPDATE venue_routes SET
        state = CASE WHEN request ->> 'error_code' IS NULL THEN 'working' ELSE 'unknown' END,
        attempts = greatest(attempts, (request ->> 'retry_attempt')::integer + 1),
        submitted_at = CASE request ->> 'step' WHEN 'submit' THEN v_at ELSE submitted_at END,
        lease_expires_at = v_at + (request ->> 'lease_ms')::integer * interval '1 millisecond',
        told_at = CASE WHEN (request ->> 'unresolved')::boolean THEN coalesce(told_at, v_at) ELSE told_at END,
        updated_at = v_at
    WHERE user_id = v_order.user_id AND order_id = v_order.id;
    UPDATE orders SET venue_order_id = coalesce(request ->> 'venue_order_id', venue_order_id)
    WHERE user_id = v_order.user_id AND id = v_order.id AND request ->> 'venue_order_id' IS NOT NULL;

    v_tell := coalesce((request ->> 'unresolved')::boolean, false) AND v_route.told_at IS NULL;
    PERFORM append_attempt(request, v_account, v_order, v_route.venue, v_tell, v_at);
    IF v_tell THEN
        v_order.failure_code := 'VENUE_UNAVAILABLE';
        v_order.failure_reason := 'The venue does not answer. The order is in flight; it is looked up until it does.';
        PERFORM append_event(
            v_account, v_account.last_sequence + 1, 'order.in_flight',
            jsonb_build_object('orders', jsonb_build_array(routed_order_fact(v_order))), request ->> 'request_id', v_at
        );
    END IF;
    RETURN jsonb_build_object('recorded', true, 'sequence', CASE WHEN v_tell THEN v_account.last_sequence + 1 END);
END
$$;

-- Audit row of an attempt, unless it stands there, and the account's heads; p_event: an event takes the next sequence.
CREATE OR REPLACE FUNCTION append_attempt(
    request jsonb, p_account accounts, p_order orders, p_venue text, p_event boolean, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_entries audit_entry [] := ARRAY[ROW(
        request ->> 'action', p_order.status, jsonb_strip_nulls(jsonb_build_object(
            'venue', p_venue, 'step', request ->> 'step', 'error_code', request ->> 'error_code',
            'venue_order_id', request ->> 'venue_order_id'
        )), NULL, (request ->> 'retry_attempt')::integer
    )::audit_entry];
    v_head bytea := p_account.audit_head;
BEGIN
    IF EXISTS (
        SELECT FROM order_audit_log AS l
        WHERE l.user_id = p_order.user_id AND l.order_id = p_order.id AND l.action = request ->> 'action'
            AND l.retry_attempt = (request ->> 'retry_attempt')::integer
    ) THEN
        v_entries := '{}';
    ELSE
        v_head := append_audit(p_account, p_order.id, v_entries, p_at);
    END IF;
    UPDATE accounts SET
        last_sequence = last_sequence + CASE WHEN p_event THEN 1 ELSE 0 END,
        audit_version = audit_version + cardinality(v_entries),
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
END
$$;

-- Give the lease back: the order is due again in due_ms. Nothing happens when another holder has it already.
-- request {version: 1, user_id, order_id, holder, fencing, due_ms}; answer {"released": boolean}
CREATE OR REPLACE FUNCTION release_venue_order(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    UPDATE venue_routes SET
        lease_expires_at = NULL,
        due_at = clock_timestamp() + (request ->> 'due_ms')::integer * interval '1 millisecond'
    WHERE user_id = (request ->> 'user_id')::uuid AND order_id = (request ->> 'order_id')::uuid
        AND lease_holder = (request ->> 'holder')::uuid AND lease_fencing = (request ->> 'fencing')::bigint;
    RETURN jsonb_build_object('released', FOUND);
END
$$;

-- The account of an order, locked by a statement of its own.
CREATE OR REPLACE FUNCTION lock_account_of_order(request jsonb) RETURNS accounts
LANGUAGE plpgsql AS $$
DECLARE
    v_account_id uuid;
BEGIN
    SELECT o.account_id INTO v_account_id FROM orders AS o
    WHERE o.user_id = (request ->> 'user_id')::uuid AND o.id = (request ->> 'order_id')::uuid;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no such order.' USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'order_id', 'value', request ->> 'order_id', 'constraint', 'an order of the user'
        )::text;
    END IF;
    RETURN lock_account((request ->> 'user_id')::uuid, v_account_id);
END
$$;

-- The route of an order, locked after the order's row. TR013 for an order that never went to a venue.
CREATE OR REPLACE FUNCTION lock_route(p_order orders) RETURNS venue_routes
LANGUAGE plpgsql AS $$
DECLARE
    v_route venue_routes;
BEGIN
    SELECT * INTO v_route FROM venue_routes AS r
    WHERE r.user_id = p_order.user_id AND r.order_id = p_order.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Order % was not sent to a venue.', p_order.id
        USING ERRCODE = 'TR013', DETAIL = jsonb_build_object(
            'field', 'order_id', 'value', p_order.id, 'constraint', 'an order that went to a venue'
        )::text;
    END IF;
    RETURN v_route;
END
$$;

GRANT EXECUTE ON FUNCTION claim_venue_orders(jsonb) TO function_router;
GRANT EXECUTE ON FUNCTION record_venue_attempt(jsonb) TO function_router;
GRANT EXECUTE ON FUNCTION release_venue_order(jsonb) TO function_router;
