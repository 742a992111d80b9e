SET LOCAL ROLE trading_procedures;

-- Closing many positions: which ones is decided and kept once, then each is closed by an order and in a transaction of
-- its own, so that no transaction is long. What becomes of each is kept too, refusals included: whoever repeats the
-- request, after a crash or at the same time, closes what is left of the same positions and is told the same.

-- Decides which positions a request closes, oldest first; changes nothing but what its key keeps.
-- request {version: 1, user_id, account_id?, symbol?, side?: 'long' | 'short', which: 'all' | 'losers' | 'winners',
--   positions_max, idempotency_key, request_hash, idempotency_key_days}
-- -> {replayed, answer: {outcome: 'planned', account_id, matched, positions: [{position_id, symbol, side}]}}: the first
--   of those that match. A loser or winner is one at its mark now; without a quote a position is neither.
-- Raises TR001 no such account, TR002 no such symbol, TR003 key reused, TR006 several accounts and none named, an
-- unknown word.
CREATE OR REPLACE FUNCTION plan_closes(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_begun record;
    v_account accounts;
BEGIN
    PERFORM check_request_version(request);
    IF request ->> 'positions_max' IS NULL THEN
        PERFORM refuse_value('positions_max', NULL, 'a whole number');
    END IF;
    v_begun := lock_or_replay(
        request, resolve_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid)
    );
    IF v_begun.answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_begun.answer);
    END IF;
    v_account := v_begun.account;
    RETURN jsonb_build_object('replayed', false, 'answer', (
        WITH matching AS (SELECT * FROM positions_meant(request, v_account)),
        chosen AS (SELECT * FROM matching ORDER BY position_id LIMIT (request ->> 'positions_max')::integer)
        SELECT keep_answer(
            v_account, request ->> 'idempotency_key', request ->> 'request_hash', jsonb_build_object(
                'outcome', 'planned', 'account_id', v_account.id, 'matched', (SELECT count(*) FROM matching),
                'positions', coalesce((SELECT jsonb_agg(to_jsonb(c) ORDER BY c.position_id) FROM chosen AS c), '[]')
            ), (request ->> 'idempotency_key_days')::integer, clock_timestamp()
        )
    ));
END
$$;

-- Those of the account's open positions that the request means, marked now.
CREATE OR REPLACE FUNCTION positions_meant(request jsonb, p_account accounts)
RETURNS TABLE (position_id uuid, symbol text, side text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_which CONSTANT text := request ->> 'which';
BEGIN
    IF v_which IS NULL OR v_which NOT IN ('all', 'losers', 'winners') THEN
        PERFORM refuse_value('which', v_which, 'all, losers or winners');
    END IF;
    PERFORM check_known_symbol(request ->> 'symbol');
    RETURN QUERY
    SELECT v.position_id, v.symbol, v.side
    FROM valued_positions(p_account.user_id, p_account.id) AS v
    WHERE (request ->> 'symbol' IS NULL OR v.symbol = request ->> 'symbol')
        AND (request ->> 'side' IS NULL OR v.side = request ->> 'side')
        AND CASE v_which WHEN 'losers' THEN v.pnl < 0 WHEN 'winners' THEN v.pnl > 0 ELSE true END;
END
$$;

-- Closes one position of a plan, whole and at the market, by a key made of the plan's.
-- request {version: 1, user_id, position_id, idempotency_key: the plan's, request_hash, idempotency_key_days,
--   request_id?, ip_address?, user_agent?, email?}
-- -> {replayed, answer}: as of close_position without `position`, or {outcome: 'refused', account_id, position_id,
--   sqlstate, message, details} for one that is not open any more or has no fresh price
-- Raises TR001 no such position, TR003 key reused.
CREATE OR REPLACE FUNCTION close_planned(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_position_id uuid := (request ->> 'position_id')::uuid;
    v_order jsonb := request || jsonb_build_object('idempotency_key', planned_key(
        request ->> 'idempotency_key', v_position_id
    ));
    v_begun record;
    v_answer jsonb;
    v_at timestamptz;
    v_message text;
    v_detail text;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(v_order, account_of_position((request ->> 'user_id')::uuid, v_position_id, 'id'));
    IF v_begun.answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_begun.answer);
    END IF;
    v_at := clock_timestamp();
    BEGIN
        v_answer := execute_closing_order(v_order, v_begun.account, v_position_id, v_at);
    EXCEPTION WHEN SQLSTATE 'TR004' OR SQLSTATE 'TR010' THEN
        GET STACKED DIAGNOSTICS v_message = MESSAGE_TEXT, v_detail = PG_EXCEPTION_DETAIL;
        IF SQLSTATE = 'TR004' THEN
            -- Unlike elsewhere the key is used up by it.
            v_message := format(
                'There is no fresh price of %s now, so the position stays open. Send a new request shortly.',
                v_detail::jsonb ->> 'value'
            );
        END IF;
        v_answer := keep_answer(
            v_begun.account, v_order ->> 'idempotency_key', request ->> 'request_hash', jsonb_build_object(
                'outcome', 'refused', 'account_id', (v_begun.account).id, 'position_id', v_position_id,
                'sqlstate', SQLSTATE, 'message', v_message, 'details', v_detail::jsonb
            ), (request ->> 'idempotency_key_days')::integer, v_at
        );
    END;
    RETURN jsonb_build_object('replayed', false, 'answer', v_answer);
END
$$;

-- A caller's key may be as long as the column, so its digest stands in for it.
CREATE OR REPLACE FUNCTION planned_key(p_key text, p_position_id uuid) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT 'close-all:' || encode(sha256(convert_to(p_key, 'UTF8')), 'hex') || ':' || p_position_id
$$;

GRANT EXECUTE ON FUNCTION plan_closes(jsonb) TO function_trader;
GRANT EXECUTE ON FUNCTION close_planned(jsonb) TO function_trader;
