-- Changes what a user is and may: KYC, status and tier on the profile, leverage on the account, by an operator who says
-- why. The only way to those columns. Takes effect for the next order; open positions keep the margin of their fills.
-- request {version: 1, user_id, account_id, kyc_status?, account_status?, account_tier?, leverage?, reason,
--   idempotency_key, actor, actor_id?, request_hash?, request_id?, ip_address?, user_agent?, email?,
--   idempotency_key_days? (30)}
-- -> {outcome: 'changed', user_id, account_id, before, after, kyc_status, account_status, account_tier, leverage,
--   sequence, transact_time, replayed}; before and after hold what is changed by it.
-- Raises TR001 no such account, TR003 key reused, TR006 an unknown value or nothing to change, TR011 the actor's own
-- account.
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
        'account_tier', v_profile.account_tier, 'leverage', v_account.leverage
    );
    SELECT jsonb_object_agg(a.key, a.value), jsonb_object_agg(a.key, v_old -> a.key) INTO v_after, v_before
    FROM jsonb_each(requested_terms(request)) AS a
    WHERE a.value <> v_old -> a.key;
    IF v_after IS NULL THEN
        PERFORM refuse_value('changes', NULL, 'something that differs from what is set');
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

-- What a request asks to change: {kyc_status?, account_status?, account_tier?, leverage?}, leverage as a number.
CREATE OR REPLACE FUNCTION requested_terms(request jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'kyc_status', request ->> 'kyc_status', 'account_status', request ->> 'account_status',
        'account_tier', request ->> 'account_tier', 'leverage', trim_scale((request ->> 'leverage')::numeric)
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
            ('account_tier', ARRAY['bronze', 'silver', 'gold', 'platinum'])
        ) AS w (field, known)
        WHERE request ->> w.field <> ALL (w.known)
    LOOP
        PERFORM refuse_value(v_word.field, left(v_word.value, 100), 'one of ' || array_to_string(v_word.known, ', '));
    END LOOP;
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
    IF p_terms ? 'leverage' THEN
        UPDATE accounts SET leverage = (p_terms ->> 'leverage')::numeric
        WHERE user_id = p_account.user_id AND id = p_account.id;
    END IF;
END
$$;

ALTER FUNCTION change_account(jsonb) OWNER TO trading_procedures;
ALTER FUNCTION requested_terms(jsonb) OWNER TO trading_procedures;
ALTER FUNCTION check_account_terms(jsonb, accounts) OWNER TO trading_procedures;
ALTER FUNCTION write_account_terms(accounts, jsonb, timestamptz) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION change_account(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION requested_terms(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION check_account_terms(jsonb, accounts) FROM PUBLIC;
REVOKE ALL ON FUNCTION write_account_terms(accounts, jsonb, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION change_account(jsonb) TO function_operator;
