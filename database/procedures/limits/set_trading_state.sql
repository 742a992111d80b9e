SET LOCAL ROLE trading_procedures;

-- The kill switch: who may trade, of the platform, of a symbol or of an account. The strictest of the three holds.
--   active: everything. reducing: only what lowers exposure. halted: besides, no new order rests.
-- Canceling and closing stay open in every state. Each order reads the states under its account's lock, so one that is
-- still before that is judged by the new ones.

-- request {version: 1, scope: 'platform' | 'symbol' | 'account', symbol? (of a symbol), account_id? (of an account),
--   trading_state: 'active' | 'reducing' | 'halted', reason, actor, actor_id?, idempotency_key, request_hash,
--   request_id?, ip_address?, user_agent?, email?}
-- -> {replayed, answer: {change_id, scope, symbol, account_id, before, trading_state, reason, sequence,
--   transact_time}}; `sequence` is that of the account's event, NULL for another scope and where nothing changed.
-- Raises TR001 no such account, TR002 no such symbol, TR003 key reused, TR006 a value, TR011 the actor's own account.
CREATE OR REPLACE FUNCTION set_trading_state(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_before text;
    v_kept trading_state_changes;
    v_at timestamptz;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_scope(request);
    PERFORM check_reason(request, true);
    IF coalesce(request ->> 'trading_state', '') NOT IN ('active', 'reducing', 'halted') THEN
        PERFORM refuse_value('trading_state', left(request ->> 'trading_state', 100), 'active, reducing or halted');
    END IF;
    PERFORM lock_actor_key(request);
    v_account := account_of_scope(request);
    v_before := state_of_scope(request, v_account);
    v_kept := kept_state_change(request);
    IF v_kept.id IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_kept.answer);
    END IF;
    v_at := clock_timestamp();
    RETURN jsonb_build_object('replayed', false, 'answer', write_trading_state(request, v_account, v_before, v_at));
END
$$;

-- Which of symbol and account_id go with a scope.
CREATE OR REPLACE FUNCTION check_scope(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_field record;
BEGIN
    IF coalesce(request ->> 'scope', '') NOT IN ('platform', 'symbol', 'account') THEN
        PERFORM refuse_value('scope', left(request ->> 'scope', 100), 'platform, symbol or account');
    END IF;
    FOR v_field IN
        SELECT f.name, f.scope = request ->> 'scope' AS wanted
        FROM (VALUES ('symbol', 'symbol'), ('account_id', 'account')) AS f (name, scope)
        WHERE (f.scope = request ->> 'scope') IS DISTINCT FROM (request ->> f.name IS NOT NULL)
    LOOP
        PERFORM refuse_value(v_field.name, left(request ->> v_field.name, 100), CASE
            WHEN v_field.wanted THEN format('given with the scope %s', request ->> 'scope')
            ELSE format('left out with the scope %s', request ->> 'scope')
        END);
    END LOOP;
END
$$;

-- The account that is meant, locked; all NULL for another scope.
CREATE OR REPLACE FUNCTION account_of_scope(request jsonb) RETURNS accounts
LANGUAGE plpgsql AS $$
DECLARE
    v_account accounts;
BEGIN
    IF request ->> 'scope' = 'account' THEN
        SELECT * INTO v_account FROM accounts AS a WHERE a.id = (request ->> 'account_id')::uuid FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'There is no account with this id. GET /api/v1/accounts?email= lists a user''s.'
            USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
                'field', 'account_id', 'value', request ->> 'account_id', 'constraint', 'an account'
            )::text;
        END IF;
        IF (request ->> 'actor_id')::uuid = v_account.user_id THEN
            RAISE EXCEPTION 'This account is your own: have another officer act on it.'
            USING ERRCODE = 'TR011', DETAIL = jsonb_build_object(
                'field', 'account_id', 'value', request ->> 'account_id', 'constraint', 'an account of somebody else'
            )::text;
        END IF;
    END IF;
    RETURN v_account;
END
$$;

-- The state as it is, its row locked, so that of two changes each begins where the other ended.
CREATE OR REPLACE FUNCTION state_of_scope(request jsonb, p_account accounts) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_state text := p_account.trading_state;
BEGIN
    IF request ->> 'scope' = 'symbol' THEN
        RETURN locked_symbol_state(request ->> 'symbol');
    ELSIF request ->> 'scope' = 'platform' THEN
        SELECT s.trading_state INTO v_state FROM platform_settings AS s FOR NO KEY UPDATE;
    END IF;
    RETURN v_state;
END
$$;

CREATE OR REPLACE FUNCTION locked_symbol_state(p_symbol text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
BEGIN
    SELECT i.trading_state INTO v_state FROM instruments AS i WHERE i.symbol = p_symbol FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no instrument %.', left(p_symbol, 100)
        USING ERRCODE = 'TR002', DETAIL = jsonb_build_object(
            'field', 'symbol', 'value', left(p_symbol, 100), 'constraint', 'a known symbol'
        )::text;
    END IF;
    RETURN v_state;
END
$$;

-- What the actor's key was used for; all NULL for a new one.
CREATE OR REPLACE FUNCTION kept_state_change(request jsonb) RETURNS trading_state_changes
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_kept trading_state_changes;
BEGIN
    SELECT * INTO v_kept FROM trading_state_changes AS c
    WHERE c.actor = request ->> 'actor' AND c.idempotency_key = request ->> 'idempotency_key';
    IF v_kept.request_hash <> request ->> 'request_hash' THEN
        PERFORM refuse_key(request ->> 'idempotency_key');
    END IF;
    RETURN v_kept;
END
$$;

-- State, history, audit and, of an account, event; the answer.
CREATE OR REPLACE FUNCTION write_trading_state(
    request jsonb, p_account accounts, p_before text, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_id CONSTANT uuid := uuidv7();
    v_after CONSTANT text := request ->> 'trading_state';
    v_changes CONSTANT boolean := p_before <> v_after;
    v_answer CONSTANT jsonb := jsonb_build_object(
        'change_id', v_id, 'scope', request -> 'scope', 'symbol', request -> 'symbol',
        'account_id', request -> 'account_id', 'before', p_before, 'trading_state', v_after,
        'reason', request -> 'reason', 'transact_time', utc_text(p_at), 'sequence', CASE
            WHEN v_changes THEN p_account.last_sequence + 1
        END
    );
BEGIN
    UPDATE accounts SET trading_state = v_after
    WHERE v_changes AND user_id = p_account.user_id AND id = p_account.id;
    UPDATE instruments SET trading_state = v_after, updated_at = p_at
    WHERE v_changes AND symbol = request ->> 'symbol';
    -- Its breaker measures anew from here: what has tripped it must not do so again.
    UPDATE symbol_breakers SET armed_at = p_at
    WHERE v_changes AND v_after = 'active' AND symbol = request ->> 'symbol';
    UPDATE platform_settings SET trading_state = v_after, updated_at = p_at
    WHERE v_changes AND request ->> 'scope' = 'platform';
    IF v_changes AND p_account.id IS NOT NULL THEN
        PERFORM tell_operator_act(
            request, p_account, 'ACCOUNT_CHANGED', jsonb_build_object(
                'before', jsonb_build_object('trading_state', p_before),
                'after', jsonb_build_object('trading_state', v_after)
            ), jsonb_build_object('trading_state', v_after), p_at
        );
    END IF;
    INSERT INTO trading_state_changes (
        id, scope, symbol, user_id, account_id, before, after, actor, reason, idempotency_key, request_hash, answer,
        changed_at
    ) VALUES (
        v_id, request ->> 'scope', request ->> 'symbol', p_account.user_id, p_account.id, p_before, v_after,
        request ->> 'actor', request ->> 'reason', request ->> 'idempotency_key', request ->> 'request_hash', v_answer,
        p_at
    );
    -- The head of the platform's chain is locked last, because everybody waits for it.
    IF v_changes AND p_account.id IS NULL THEN
        PERFORM append_platform_audit(
            request ->> 'actor', 'TRADING_STATE_SET', v_answer - ARRAY['reason', 'transact_time', 'sequence'],
            request ->> 'reason'
        );
    END IF;
    RETURN v_answer;
END
$$;

-- One key of an actor, one act, also when it comes twice at once.
CREATE OR REPLACE FUNCTION lock_actor_key(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF request ->> 'idempotency_key' IS NULL THEN
        PERFORM refuse_value('idempotency_key', NULL, 'a key of 1 to 255 characters');
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(request ->> 'actor' || ' ' || (request ->> 'idempotency_key'), 0));
END
$$;

CREATE OR REPLACE FUNCTION refuse_key(p_key text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'This idempotency key was used for another request. Send a new key with new content.'
    USING ERRCODE = 'TR003', DETAIL = jsonb_build_object(
        'field', 'idempotency_key', 'value', p_key, 'constraint', 'one key, one request'
    )::text;
END
$$;

-- Whether orders may still be under way that have read the states as they were. Once everything below the horizon,
-- taken after the change has committed, is over, nobody trades by the old states any more, because an order locks its
-- account, and so is a transaction with an id, before it reads them. The horizon is an id of its own: the end of a
-- snapshot lies before orders that began after the change had its id, and are under way with what they read before it
-- committed.
CREATE OR REPLACE FUNCTION order_horizon() RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT pg_current_xact_id()::text
$$;

CREATE OR REPLACE FUNCTION orders_are_over(p_horizon text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT pg_snapshot_xmin(pg_current_snapshot()) >= p_horizon::xid8
$$;

-- What is not active now: {platform, symbols: [{symbol, trading_state}], accounts: [{account_id, trading_state}], each
-- list at most 500 long; changes: the last 100 of any scope, newest first}
CREATE OR REPLACE FUNCTION list_trading_states() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'platform', (SELECT s.trading_state FROM platform_settings AS s),
        'symbols', (
            SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.symbol), '[]')
            FROM (
                SELECT i.symbol, i.trading_state FROM instruments AS i
                WHERE i.trading_state <> 'active' ORDER BY i.symbol LIMIT 500
            ) AS x
        ),
        'accounts', (
            SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.account_id), '[]')
            FROM (
                SELECT a.id AS account_id, a.trading_state FROM accounts AS a
                WHERE a.trading_state <> 'active' ORDER BY a.id LIMIT 500
            ) AS x
        ),
        'changes', (
            SELECT coalesce(jsonb_agg(x.change ORDER BY x.id DESC), '[]')
            FROM (
                SELECT c.id, c.answer || jsonb_build_object('actor', c.actor) AS change
                FROM trading_state_changes AS c
                ORDER BY c.id DESC LIMIT 100
            ) AS x
        )
    )
$$;

GRANT EXECUTE ON FUNCTION set_trading_state(jsonb) TO function_risk_officer;
GRANT EXECUTE ON FUNCTION order_horizon() TO function_risk_officer;
GRANT EXECUTE ON FUNCTION orders_are_over(text) TO function_risk_officer;
GRANT EXECUTE ON FUNCTION list_trading_states() TO function_risk_officer;
