SET LOCAL ROLE trading_procedures;

-- Winding down what is left when trading was stopped: the working orders of a platform, symbol or account are canceled,
-- and with `flatten` its positions closed. Which accounts have something is decided once and queued; each is then
-- worked off in transactions of its own (wind_down_step).

-- What a wind-down would come to, changing nothing. request {version: 1, scope, symbol?, account_id?, action:
-- 'cancel_orders' | 'flatten', actor_id?} -> {accounts, working_orders, open_positions}
-- Raises TR001 no such account, TR002 no such symbol, TR006 a value, TR010 trading is active, TR011 the actor's own
-- account.
CREATE OR REPLACE FUNCTION preview_wind_down(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_wind_down(request);
    RETURN (
        SELECT jsonb_build_object(
            'accounts', count(DISTINCT x.account_id), 'working_orders', coalesce(sum(x.working_orders), 0),
            'open_positions', coalesce(sum(x.open_positions), 0)
        )
        FROM to_wind_down(request) AS x
    );
END
$$;

-- Queues the accounts that have something to wind down. request: as of preview_wind_down, and {reason, actor,
--   idempotency_key, request_hash}
-- -> {replayed, answer: {wind_down_id, scope, symbol, account_id, action, accounts, started_at}}
-- Raises what preview_wind_down does, and TR003 key reused.
CREATE OR REPLACE FUNCTION start_wind_down(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_id CONSTANT uuid := uuidv7();
    v_at CONSTANT timestamptz := clock_timestamp();
    v_kept wind_downs;
    v_users uuid [];
    v_accounts uuid [];
BEGIN
    PERFORM check_reason(request, true);
    PERFORM lock_actor_key(request);
    SELECT * INTO v_kept FROM wind_downs AS w
    WHERE w.actor = request ->> 'actor' AND w.idempotency_key = request ->> 'idempotency_key';
    IF v_kept.request_hash <> request ->> 'request_hash' THEN
        PERFORM refuse_key(request ->> 'idempotency_key');
    ELSIF v_kept.id IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', wind_down_answer(v_kept));
    END IF;
    PERFORM check_wind_down(request);
    -- Looked at once: by a second look there may be others, and the number would never be reached.
    SELECT array_agg(x.user_id ORDER BY x.account_id), array_agg(x.account_id ORDER BY x.account_id)
    INTO v_users, v_accounts
    FROM to_wind_down(request) AS x;
    INSERT INTO wind_downs (
        id, scope, symbol, account_id, action, actor, reason, accounts, idempotency_key, request_hash, started_at
    ) VALUES (
        v_id, request ->> 'scope', request ->> 'symbol', (request ->> 'account_id')::uuid, request ->> 'action',
        request ->> 'actor', request ->> 'reason', coalesce(cardinality(v_accounts), 0), request ->> 'idempotency_key',
        request ->> 'request_hash', v_at
    ) RETURNING * INTO v_kept;
    INSERT INTO wind_down_accounts (wind_down_id, user_id, account_id, due_at)
    SELECT v_id, x.user_id, x.account_id, v_at FROM unnest(v_users, v_accounts) AS x (user_id, account_id);
    PERFORM append_platform_audit(
        request ->> 'actor', 'WIND_DOWN_STARTED', wind_down_answer(v_kept) - 'started_at', request ->> 'reason'
    );
    RETURN jsonb_build_object('replayed', false, 'answer', wind_down_answer(v_kept));
END
$$;

CREATE OR REPLACE FUNCTION wind_down_answer(p_wind_down wind_downs) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'wind_down_id', p_wind_down.id, 'scope', p_wind_down.scope, 'symbol', p_wind_down.symbol,
        'account_id', p_wind_down.account_id, 'action', p_wind_down.action, 'accounts', p_wind_down.accounts,
        'started_at', utc_text(p_wind_down.started_at)
    )
$$;

-- Refuses what nothing can be wound down for. While trading is active, what is closed could be opened again at once.
CREATE OR REPLACE FUNCTION check_wind_down(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_scope(request);
    IF coalesce(request ->> 'action', '') NOT IN ('cancel_orders', 'flatten') THEN
        PERFORM refuse_value('action', left(request ->> 'action', 100), 'cancel_orders or flatten');
    END IF;
    v_state := CASE request ->> 'scope'
        WHEN 'account' THEN (account_of_scope(request)).trading_state
        WHEN 'symbol' THEN locked_symbol_state(request ->> 'symbol')
        ELSE 'active'
    END;
    IF v_state = 'active' AND (SELECT s.trading_state FROM platform_settings AS s) = 'active' THEN
        RAISE EXCEPTION 'Trading is active there: set its trading_state to reducing or halted first.'
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'trading_state', 'value', v_state, 'constraint', 'reducing or halted'
        )::text;
    END IF;
END
$$;

-- The accounts that have working orders or, to flatten, open positions, and how many. What is in flight to a venue is
-- not ours to cancel; to flatten, its account is looked at until it has come back.
CREATE OR REPLACE FUNCTION to_wind_down(request jsonb)
RETURNS TABLE (user_id uuid, account_id uuid, working_orders bigint, open_positions bigint)
LANGUAGE sql STABLE AS $$
    SELECT x.user_id, x.account_id, sum(x.working_orders)::bigint, sum(x.open_positions)::bigint
    FROM (
        SELECT o.user_id, o.account_id, 1 AS working_orders, 0 AS open_positions, o.symbol
        FROM orders AS o
        WHERE o.status IN ('new', 'triggered', 'partially_filled')
        UNION ALL
        SELECT p.user_id, p.account_id, 0, 1, p.symbol
        FROM positions AS p
        WHERE p.status = 'open' AND request ->> 'action' = 'flatten'
        UNION ALL
        SELECT r.user_id, r.account_id, 0, 0, o.symbol
        FROM venue_routes AS r
        INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
        WHERE r.state <> 'done' AND request ->> 'action' = 'flatten'
    ) AS x
    WHERE (request ->> 'symbol' IS NULL OR x.symbol = request ->> 'symbol')
        AND (request ->> 'account_id' IS NULL OR x.account_id = (request ->> 'account_id')::uuid)
    GROUP BY x.user_id, x.account_id
$$;

-- How far one has come. -> wind_down_answer and {reason, actor, done: accounts, waiting: accounts that were looked at
-- and are not done, orders_canceled, positions_closed: here, positions_sent: to venues to close, finished}; TR001 no
-- such wind-down.
CREATE OR REPLACE FUNCTION get_wind_down(p_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_wind_down wind_downs;
BEGIN
    SELECT * INTO v_wind_down FROM wind_downs AS w WHERE w.id = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no wind-down with this id.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'id', 'value', p_id, 'constraint', 'a wind-down'
        )::text;
    END IF;
    RETURN (
        SELECT wind_down_answer(v_wind_down) || jsonb_build_object(
            'reason', v_wind_down.reason, 'actor', v_wind_down.actor, 'done', count(a.done_at),
            'waiting', count(*) FILTER (WHERE a.done_at IS NULL AND a.attempts > 0),
            'orders_canceled', coalesce(sum(a.orders_canceled), 0),
            'positions_closed', coalesce(sum(a.positions_closed), 0),
            'positions_sent', coalesce(sum(a.positions_sent), 0),
            'finished', count(a.done_at) = v_wind_down.accounts
        )
        FROM wind_down_accounts AS a
        WHERE a.wind_down_id = p_id
    );
END
$$;

GRANT EXECUTE ON FUNCTION preview_wind_down(jsonb) TO function_risk_officer;
GRANT EXECUTE ON FUNCTION start_wind_down(jsonb) TO function_risk_officer;
GRANT EXECUTE ON FUNCTION get_wind_down(uuid) TO function_risk_officer;
