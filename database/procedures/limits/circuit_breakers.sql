SET LOCAL ROLE trading_procedures;

-- Circuit breakers: trading that the platform itself reduces, until a person sets it to active again. Of a symbol when
-- its price moves too far too fast or its spread is too wide, of an account after too many losses in a row, of the
-- platform when too many orders are refused. What reduces stays possible throughout.

-- The range of mids after one more. Windows follow each other: what a move is measured over reaches back at least one,
-- at most two of them, so none within a window is missed. NULL range, or nothing for two windows: it begins anew.
CREATE OR REPLACE FUNCTION next_price_range(
    p_range price_range, p_mid numeric, p_at timestamptz, p_window interval
) RETURNS price_range
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_at < (p_range).since + p_window THEN ROW(
            (p_range).since, least((p_range).low, p_mid), greatest((p_range).high, p_mid),
            (p_range).low_before, (p_range).high_before
        )::price_range
        WHEN p_at < (p_range).since + 2 * p_window THEN ROW(
            p_at, p_mid, p_mid, (p_range).low, (p_range).high
        )::price_range
        ELSE ROW(p_at, p_mid, p_mid, p_mid, p_mid)::price_range
    END
$$;

-- The quotes of p_written that ask for a breaker, with their figures and limits in percent; one look-up a quote.
CREATE OR REPLACE FUNCTION quotes_that_trip(p_written quotes[])
RETURNS TABLE (symbol text, move numeric, spread numeric, move_percent numeric, spread_percent numeric)
LANGUAGE sql STABLE AS $$
    SELECT w.symbol, m.move, m.spread, b.move_percent, b.spread_percent
    FROM unnest(p_written) AS w
    INNER JOIN symbol_breakers AS b USING (symbol)
    CROSS JOIN LATERAL (
        SELECT
            (greatest((w.range).high, (w.range).high_before) / least((w.range).low, (w.range).low_before) - 1) * 100
                AS move,
            (w.ask - w.bid) * 200 / (w.ask + w.bid) AS spread
    ) AS m
    WHERE m.move > b.move_percent OR m.spread > b.spread_percent
$$;

-- Trips the breakers of the symbols whose newest quotes p_written ask for it. On a demonstration system (trade_always)
-- prices are played with and trip nothing.
CREATE OR REPLACE FUNCTION trip_symbol_breakers(p_written quotes[], p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_due record;
BEGIN
    IF (SELECT s.trade_always FROM platform_settings AS s) THEN
        RETURN;
    END IF;
    -- All states first: the head of the platform's chain, which each that trips takes, is everybody's last lock.
    PERFORM FROM instruments AS i
    WHERE i.symbol IN (SELECT q.symbol FROM quotes_that_trip(p_written) AS q)
    ORDER BY i.symbol
    FOR NO KEY UPDATE;
    FOR v_due IN SELECT q.* FROM quotes_that_trip(p_written) AS q ORDER BY q.symbol LOOP
        PERFORM trip_breaker(jsonb_build_object('scope', 'symbol', 'symbol', v_due.symbol), CASE
            WHEN v_due.move > v_due.move_percent THEN format(
                'Circuit breaker: the price moved by %s %%, more than %s %%', round(v_due.move, 2),
                trim_scale(v_due.move_percent)
            )
            ELSE format(
                'Circuit breaker: the spread is %s %%, more than %s %%', round(v_due.spread, 2),
                trim_scale(v_due.spread_percent)
            )
        END, p_at);
    END LOOP;
END
$$;

-- Sets the state of an active p_subject {scope, symbol?, account_id?} to reducing; whether it was active.
CREATE OR REPLACE FUNCTION trip_breaker(p_subject jsonb, p_reason text, p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_key CONSTANT text := uuidv7()::text;
    v_account accounts := account_of_scope(p_subject);
    v_before text := state_of_scope(p_subject, v_account);
BEGIN
    IF v_before <> 'active' THEN
        RETURN false;
    END IF;
    PERFORM write_trading_state(p_subject || jsonb_build_object(
        'trading_state', 'reducing', 'reason', p_reason, 'actor', 'circuit_breaker', 'idempotency_key', v_key,
        'request_hash', v_key
    ), v_account, v_before, p_at);
    RETURN true;
END
$$;

-- The share of refused orders, in percent, of those sent in the last reject_rate_window_s, and since somebody last set
-- the platform's state: NULL while they are too few, or of too few users, to say anything. What was not taken because
-- trading is stopped or closed, or because its user may not trade, is not looked at: a breaker that has tripped would
-- trip the next one.
CREATE OR REPLACE FUNCTION reject_rate(p_at timestamptz) RETURNS numeric
LANGUAGE sql STABLE AS $$
    WITH sent AS (
        SELECT
            l.user_id, l.order_id, bool_or(l.action = 'REJECTED') AS refused,
            max(l.details ->> 'code') FILTER (WHERE l.action = 'REJECTED') AS code
        FROM platform_settings AS s
        INNER JOIN order_audit_log AS l ON l.created_at >= greatest(
            p_at - s.reject_rate_window_s * interval '1 s', (
                SELECT max(c.changed_at) FROM trading_state_changes AS c WHERE c.scope = 'platform'
            )
        )
        GROUP BY l.user_id, l.order_id
        HAVING bool_or(l.action = 'SUBMITTED')
    )
    SELECT CASE
        WHEN count(t.order_id) >= s.reject_rate_orders_min
            AND count(DISTINCT t.user_id) FILTER (WHERE t.refused) >= s.reject_rate_users_min
            THEN count(*) FILTER (WHERE t.refused) * 100.0 / count(t.order_id)
    END
    FROM platform_settings AS s
    LEFT JOIN sent AS t
        ON coalesce(t.code, '') NOT IN ('TRADING_HALTED', 'MARKET_CLOSED', 'ACCOUNT_NOT_ACTIVE', 'KYC_REQUIRED')
    GROUP BY s.reject_rate_orders_min, s.reject_rate_users_min
$$;

-- Active accounts whose last closes all were losses, as many as their limit says or more, since somebody last set their
-- state. Only those are looked at that have changed since p_since.
CREATE OR REPLACE FUNCTION accounts_losing(p_since timestamptz)
RETURNS TABLE (user_id uuid, account_id uuid, losses bigint)
LANGUAGE sql STABLE AS $$
    SELECT a.user_id, a.id, r.losses
    FROM accounts AS a
    INNER JOIN effective_limits AS l ON a.user_id = l.user_id AND a.id = l.account_id
    CROSS JOIN LATERAL (
        -- A close that is filled in parts, or closes two positions against each other, is one.
        SELECT count(DISTINCT e.order_id) AS losses
        FROM ledger_entries AS e
        WHERE l.max_losses_in_a_row IS NOT NULL
            AND e.user_id = a.user_id AND e.account_id = a.id AND e.entry_type = 'realized_pnl' AND e.amount < 0
            AND e.entry_number > coalesce((
                SELECT g.entry_number FROM ledger_entries AS g
                WHERE g.user_id = a.user_id AND g.account_id = a.id AND g.entry_type = 'realized_pnl'
                    AND g.amount >= 0 AND (
                        SELECT sum(f.realized_pnl) FROM fills AS f
                        WHERE f.user_id = g.user_id AND f.order_id = g.order_id
                    ) >= 0
                ORDER BY g.entry_number DESC LIMIT 1
            ), 0)
            AND e.created_at > (
                SELECT coalesce(max(c.changed_at), '-infinity') FROM trading_state_changes AS c
                WHERE c.scope = 'account' AND c.symbol IS NULL AND c.account_id = a.id
            )
    ) AS r
    WHERE a.updated_at >= p_since AND a.trading_state = 'active' AND r.losses >= l.max_losses_in_a_row
$$;

-- Looks at what no quote and no single order shows: the platform's breaker is tripped here, the accounts that are due
-- are named, of those that have changed within so many seconds. request {version: 1, within_s, accounts_max}
-- -> {tripped: whether the platform's tripped, reject_rate: percent or NULL, due: [{user_id, account_id}]}
CREATE OR REPLACE FUNCTION watch_breakers(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_rate CONSTANT numeric := reject_rate(v_at);
    v_max CONSTANT numeric := (SELECT s.reject_rate_percent FROM platform_settings AS s);
    v_tripped boolean := false;
BEGIN
    PERFORM check_request_version(request);
    IF v_rate > v_max AND NOT (SELECT s.trade_always FROM platform_settings AS s) THEN
        v_tripped := trip_breaker('{"scope": "platform"}', format(
            'Circuit breaker: %s %% of the orders were refused, more than %s %%', round(v_rate, 2), trim_scale(v_max)
        ), v_at);
    END IF;
    RETURN jsonb_build_object('tripped', v_tripped, 'reject_rate', round(v_rate, 2), 'due', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('user_id', x.user_id, 'account_id', x.account_id)), '[]')
        FROM (
            SELECT * FROM accounts_losing(v_at - (request ->> 'within_s')::integer * interval '1 s')
            LIMIT (request ->> 'accounts_max')::integer
        ) AS x
    ));
END
$$;

-- Trips one account's breaker, looked at again under its lock. request {version: 1, user_id, account_id, request_id?}
-- -> {tripped, losses}
CREATE OR REPLACE FUNCTION trip_account_breaker(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_losses bigint;
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    SELECT x.losses INTO v_losses FROM accounts_losing('-infinity') AS x WHERE x.account_id = v_account.id;
    RETURN jsonb_build_object('losses', v_losses, 'tripped', v_losses IS NOT NULL AND trip_breaker(
        jsonb_build_object('scope', 'account', 'account_id', v_account.id, 'request_id', request -> 'request_id'),
        format('Circuit breaker: %s closes at a loss in a row', v_losses), clock_timestamp()
    ));
END
$$;

GRANT EXECUTE ON FUNCTION watch_breakers(jsonb) TO function_risk;
GRANT EXECUTE ON FUNCTION trip_account_breaker(jsonb) TO function_risk;
