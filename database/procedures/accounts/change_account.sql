SET LOCAL ROLE trading_procedures;

-- Changes what a user is and may: KYC, status and tier on the profile, leverage, position mode and margin profile on
-- the account, by an operator who says why. The only way to those columns. Takes effect for the next order; open
-- positions keep the margin of their fills, and the mode changes while there are none and no order works.
-- request {version: 1, user_id, account_id, kyc_status?, account_status?, account_tier?, leverage?, position_mode?,
--   margin_profile?, reason, idempotency_key, actor, actor_id?, request_hash?, request_id?, ip_address?, user_agent?,
--   email?, idempotency_key_days? (30)}
-- -> {outcome: 'changed', user_id, account_id, before, after, kyc_status, account_status, account_tier, leverage,
--   position_mode, margin_profile (NULL: the default of its kind and tier), sequence, transact_time, replayed};
--   before and after hold what is changed by it.
-- Raises TR001 no such account, TR003 key reused, TR006 an unknown value or nothing to change, TR010 a mode that a
-- position or an order stands in the way of, TR011 the actor's own account.
CREATE OR REPLACE FUNCTION change_account(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_opened record;
    v_account accounts;
    v_profile profiles;
    v_old jsonb;
    v_after jsonb;
    v_before jsonb;
    v_at timestamptz;
    v_answer jsonb;
BEGIN
    SELECT * INTO v_opened FROM open_operator_request(request, 'change');
    IF v_opened.answer IS NOT NULL THEN
        RETURN v_opened.answer || '{"replayed": true}';
    END IF;
    v_account := v_opened.account;
    PERFORM check_reason(request, true);
    PERFORM check_account_terms(request, v_account);
    -- After the account, like everywhere: two accounts of a user change one profile in the order of the clock below.
    SELECT * INTO v_profile FROM profiles WHERE id = v_account.user_id FOR NO KEY UPDATE;
    v_at := clock_timestamp();

    v_old := jsonb_build_object(
        'kyc_status', v_profile.kyc_status, 'account_status', v_profile.account_status,
        'account_tier', v_profile.account_tier, 'leverage', v_account.leverage,
        'position_mode', v_account.position_mode, 'margin_profile', v_account.margin_profile
    );
    SELECT jsonb_object_agg(a.key, a.value), jsonb_object_agg(a.key, v_old -> a.key) INTO v_after, v_before
    FROM jsonb_each(requested_terms(request)) AS a
    WHERE a.value <> v_old -> a.key;
    IF v_after IS NULL THEN
        PERFORM refuse_value('changes', NULL, 'something that differs from what is set');
    END IF;
    IF v_after ? 'position_mode' THEN
        PERFORM check_mode_may_change(v_account);
    END IF;
    PERFORM write_account_terms(v_account, v_after, v_at);
    PERFORM tell_operator_act(
        request, v_account, 'ACCOUNT_CHANGED', jsonb_build_object('before', v_before, 'after', v_after),
        v_old || v_after, v_at
    );
    v_answer := v_old || v_after || jsonb_build_object(
        'outcome', 'changed', 'user_id', v_account.user_id, 'account_id', v_account.id, 'before', v_before,
        'after', v_after, 'sequence', v_account.last_sequence + 1, 'transact_time', utc_text(v_at)
    );
    PERFORM keep_operator_answer(request, v_account, v_opened.request_hash, v_answer, v_at);
    RETURN v_answer || '{"replayed": false}';
END
$$;

-- What a request asks to change: {kyc_status?, account_status?, account_tier?, leverage?, position_mode?,
-- margin_profile?}, leverage as a number.
CREATE OR REPLACE FUNCTION requested_terms(request jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'kyc_status', request ->> 'kyc_status', 'account_status', request ->> 'account_status',
        'account_tier', request ->> 'account_tier', 'leverage', trim_scale((request ->> 'leverage')::numeric),
        'position_mode', request ->> 'position_mode', 'margin_profile', request ->> 'margin_profile'
    ))
$$;

CREATE OR REPLACE FUNCTION check_account_terms(request jsonb, p_account accounts) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_word record;
    v_leverage numeric;
BEGIN
    FOR v_word IN
        SELECT w.field, request ->> w.field AS value, w.known
        FROM (VALUES
            ('kyc_status', ARRAY['pending', 'verified', 'rejected']),
            ('account_status', ARRAY['active', 'suspended', 'closed']),
            ('account_tier', ARRAY['bronze', 'silver', 'gold', 'platinum']),
            ('position_mode', ARRAY['hedging', 'netting'])
        ) AS w (field, known)
        WHERE request ->> w.field <> ALL (w.known)
    LOOP
        PERFORM refuse_value(v_word.field, left(v_word.value, 100), 'one of ' || array_to_string(v_word.known, ', '));
    END LOOP;
    IF p_account.kind = 'cash' AND request ->> 'position_mode' = 'hedging' THEN
        PERFORM refuse_value('position_mode', 'hedging', 'netting on a cash account, which is never short');
    END IF;
    PERFORM check_margin_profile(request ->> 'margin_profile', p_account);
    IF request ->> 'leverage' IS NULL THEN
        RETURN;
    END IF;
    v_leverage := CASE WHEN pg_input_is_valid(request ->> 'leverage', 'numeric') THEN request ->> 'leverage' END;
    IF v_leverage IS NULL OR NOT v_leverage BETWEEN 1 AND 1000 OR v_leverage <> round(v_leverage, 2) THEN
        PERFORM refuse_value('leverage', left(request ->> 'leverage', 100), '1 to 1000 with at most 2 places');
    END IF;
    IF p_account.kind = 'cash' AND v_leverage <> 1 THEN
        PERFORM refuse_value('leverage', request ->> 'leverage', '1 on a cash account, which borrows nothing');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION check_margin_profile(p_profile text, p_account accounts) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_known text;
BEGIN
    IF p_profile IS NULL THEN
        RETURN;
    END IF;
    IF p_account.kind = 'cash' THEN
        PERFORM refuse_value('margin_profile', left(p_profile, 100), 'none on a cash account, which borrows nothing');
    END IF;
    SELECT string_agg(p.name, ', ' ORDER BY p.name) INTO v_known FROM margin_profiles AS p;
    IF NOT EXISTS (SELECT FROM margin_profiles AS p WHERE p.name = p_profile) THEN
        PERFORM refuse_value('margin_profile', left(p_profile, 100), 'one of ' || v_known);
    END IF;
END
$$;

-- A position belongs to the mode that it was opened in, and an order that works may meet one. The account is locked, so
-- that no order comes in between. One in flight to a venue works there, also when it was canceled here.
CREATE OR REPLACE FUNCTION check_mode_may_change(p_account accounts) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_positions bigint;
    v_orders bigint;
BEGIN
    SELECT count(*) INTO v_positions FROM positions AS p
    WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open';
    SELECT count(*) INTO v_orders FROM (
        SELECT o.id FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
            AND o.status IN ('pending_new', 'new', 'triggered', 'partially_filled')
        UNION
        SELECT r.order_id FROM venue_routes AS r
        WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done'
    ) AS w;
    IF v_positions + v_orders > 0 THEN
        RAISE EXCEPTION 'Positions and orders stand in the way: % open, % working. Close and cancel them, then change '
            'the mode.', v_positions, v_orders
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'position_mode', 'value', p_account.position_mode, 'constraint',
            format('no open positions (now %s) and no working orders (now %s)', v_positions, v_orders)
        )::text;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION write_account_terms(p_account accounts, p_terms jsonb, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_terms ?| ARRAY['kyc_status', 'account_status', 'account_tier'] THEN
        UPDATE profiles SET
            kyc_status = coalesce(p_terms ->> 'kyc_status', kyc_status),
            account_status = coalesce(p_terms ->> 'account_status', account_status),
            account_tier = coalesce(p_terms ->> 'account_tier', account_tier),
            updated_at = p_at
        WHERE id = p_account.user_id;
    END IF;
    IF p_terms ?| ARRAY['leverage', 'position_mode', 'margin_profile'] THEN
        UPDATE accounts SET
            leverage = coalesce((p_terms ->> 'leverage')::numeric, leverage),
            position_mode = coalesce(p_terms ->> 'position_mode', position_mode),
            margin_profile = coalesce(p_terms ->> 'margin_profile', margin_profile)
        WHERE user_id = p_account.user_id AND id = p_account.id;
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION change_account(jsonb) TO function_operator;
