SET LOCAL ROLE trading_procedures;

-- The margin profiles as risk officers see and change them: levels, stop-out policy, negative balance protection. The
-- only way to those columns. A change holds from the next look at the accounts on; row, history and audit in one
-- transaction. It concerns many accounts, so no account's events tell it.

-- All of them: [{name, description, version, stop_out_policy, negative_balance_protection, levels, default_of: [{kind,
-- account_tier}], updated_at, changes: the last p_limit ones}]. levels: [{name, action, threshold, release_percent}],
-- the mildest first, percent as text.
CREATE OR REPLACE FUNCTION list_margin_profiles(p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_agg(jsonb_build_object(
        'name', p.name, 'description', p.description, 'version', p.version, 'updated_at', utc_text(p.updated_at),
        'default_of', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'kind', d.kind, 'account_tier', d.account_tier
            ) ORDER BY d.kind, d.account_tier), '[]')
            FROM margin_profile_defaults AS d WHERE d.profile = p.name
        ),
        'changes', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', c.id, 'actor', c.actor, 'reason', c.reason, 'before', c.before, 'after', c.after,
                'changed_at', utc_text(c.changed_at)
            ) ORDER BY c.id DESC), '[]') FROM (
                SELECT * FROM margin_profile_changes AS c WHERE c.profile = p.name ORDER BY c.id DESC LIMIT p_limit
            ) AS c
        )
    ) || margin_profile_terms(p) ORDER BY p.name)
    FROM margin_profiles AS p
$$;

-- What an officer may change of p_profile: {stop_out_policy, negative_balance_protection, levels}.
CREATE OR REPLACE FUNCTION margin_profile_terms(p_profile margin_profiles) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'stop_out_policy', p_profile.stop_out_policy,
        'negative_balance_protection', p_profile.negative_balance_protection,
        'levels', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', l.name, 'action', l.action, 'threshold', number_form(l.threshold),
                'release_percent', number_form(l.release_percent)
            ) ORDER BY l.threshold DESC, level_rank(l.action) DESC, l.name), '[]')
            FROM margin_profile_levels AS l WHERE l.profile = p_profile.name
        )
    )
$$;

-- request {version: 1, profile, known_version?: the one that the caller knows, stop_out_policy?,
--   negative_balance_protection?, levels?: [{name, action, threshold, release_percent}] in place of all, reason,
--   idempotency_key, request_hash, actor, ...}
-- -> {outcome: 'changed', profile, version, before, after, transact_time, replayed}; before and after hold what is
-- changed by it.
-- Raises TR001 no such profile, TR003 key reused, TR006 a value, or nothing to change, TR010 another version.
CREATE OR REPLACE FUNCTION change_margin_profile(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_before margin_profiles := lock_margin_profile(request);
    v_after margin_profiles;
    v_kept margin_profile_changes;
    v_changed jsonb [];
    v_change_id uuid := uuidv7();
    v_at timestamptz;
    v_answer jsonb;
BEGIN
    SELECT * INTO v_kept FROM margin_profile_changes AS c
    WHERE c.profile = v_before.name AND c.idempotency_key = request ->> 'idempotency_key';
    IF v_kept.request_hash <> request ->> 'request_hash' THEN
        RAISE EXCEPTION 'This idempotency key was used for another request. Send a new key with new content.'
        USING ERRCODE = 'TR003', DETAIL = jsonb_build_object(
            'field', 'idempotency_key', 'value', request ->> 'idempotency_key', 'constraint', 'one key, one request'
        )::text;
    ELSIF v_kept.id IS NOT NULL THEN
        RETURN v_kept.answer || '{"replayed": true}';
    END IF;
    PERFORM check_margin_profile_change(request, v_before);
    v_at := clock_timestamp();
    v_changed[1] := margin_profile_terms(v_before);
    v_after := write_margin_profile(request, v_before, v_at);
    v_changed[2] := margin_profile_terms(v_after);
    SELECT ARRAY[jsonb_object_agg(a.key, v_changed[1] -> a.key), jsonb_object_agg(a.key, a.value)] INTO v_changed
    FROM jsonb_each(v_changed[2]) AS a
    WHERE a.value <> v_changed[1] -> a.key;
    IF v_changed[1] IS NULL THEN
        PERFORM refuse_value('levels', NULL, 'something that differs from what is set, as stop_out_policy and '
            'negative_balance_protection may too');
    END IF;
    v_answer := jsonb_build_object(
        'outcome', 'changed', 'profile', v_after.name, 'version', v_after.version, 'before', v_changed[1],
        'after', v_changed[2], 'transact_time', utc_text(v_at)
    );
    INSERT INTO margin_profile_changes (
        id, profile, actor, reason, before, after, idempotency_key, request_hash, answer, changed_at
    ) VALUES (
        v_change_id, v_after.name, request ->> 'actor', request ->> 'reason', v_changed[1], v_changed[2],
        request ->> 'idempotency_key', request ->> 'request_hash', v_answer, v_at
    );
    PERFORM append_platform_audit(request ->> 'actor', 'MARGIN_PROFILE_CHANGED', jsonb_build_object(
        'change_id', v_change_id, 'profile', v_after.name, 'version', v_after.version, 'terms_before', v_changed[1],
        'terms_after', v_changed[2]
    ), request ->> 'reason');
    RETURN v_answer || '{"replayed": false}';
END
$$;

-- The profile that a request names, locked.
CREATE OR REPLACE FUNCTION lock_margin_profile(request jsonb) RETURNS margin_profiles
LANGUAGE plpgsql AS $$
DECLARE
    v_profile margin_profiles;
BEGIN
    PERFORM check_request_version(request);
    IF request ->> 'idempotency_key' IS NULL THEN
        PERFORM refuse_value('idempotency_key', NULL, 'a key of 1 to 255 characters');
    END IF;
    SELECT * INTO v_profile FROM margin_profiles AS p WHERE p.name = request ->> 'profile' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no such margin profile. GET /api/v1/risk/margin-profiles lists them.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'name', 'value', left(request ->> 'profile', 100), 'constraint', 'a margin profile'
        )::text;
    END IF;
    RETURN v_profile;
END
$$;

CREATE OR REPLACE FUNCTION check_margin_profile_change(request jsonb, p_profile margin_profiles) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF (request ->> 'known_version')::integer <> p_profile.version THEN
        RAISE EXCEPTION 'The profile has changed since you read it. Look at it as it is now, then decide again.'
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'version', 'value', request ->> 'known_version', 'constraint',
            format('the profile''s version, %s', p_profile.version)
        )::text;
    END IF;
    PERFORM check_reason(request, true);
    IF request ? 'levels' THEN
        PERFORM check_margin_levels(request -> 'levels', EXISTS (
            SELECT FROM margin_profile_defaults AS d WHERE d.profile = p_profile.name AND d.kind = 'cash'
        ));
    END IF;
END
$$;

-- Levels that hold together: who borrows nothing has none; everybody else is called before anything is closed, at the
-- same threshold at the latest, and warned before both.
CREATE OR REPLACE FUNCTION check_margin_levels(p_levels jsonb, p_borrows_nothing boolean) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fault text;
BEGIN
    SELECT CASE
        WHEN p_borrows_nothing AND count(*) > 0 THEN 'empty: cash accounts borrow nothing'
        WHEN p_borrows_nothing THEN NULL
        WHEN count(DISTINCT l.name) < count(*) THEN 'levels of different names'
        WHEN count(*) FILTER (WHERE l.action = 'call') <> 1 OR count(*) FILTER (WHERE l.action = 'stop_out') <> 1
            THEN 'levels with one call and one stop_out among them'
        WHEN max(l.threshold) FILTER (WHERE l.action = 'stop_out') > max(l.threshold) FILTER (WHERE l.action = 'call')
            THEN 'levels whose stop_out is not above their call'
        WHEN max(l.threshold) FILTER (WHERE l.action = 'call') > min(l.threshold) FILTER (WHERE l.action = 'warn')
            THEN 'levels whose call is not above a warning'
    END INTO v_fault
    FROM jsonb_to_recordset(p_levels) AS l (name text, action text, threshold numeric);
    IF v_fault IS NOT NULL THEN
        PERFORM refuse_value('levels', NULL, v_fault);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION write_margin_profile(request jsonb, p_profile margin_profiles, p_at timestamptz)
RETURNS margin_profiles
LANGUAGE plpgsql AS $$
BEGIN
    IF request ? 'levels' THEN
        DELETE FROM margin_profile_levels AS l WHERE l.profile = p_profile.name;
        INSERT INTO margin_profile_levels (profile, name, action, threshold, release_percent)
        SELECT p_profile.name, l.name, l.action, l.threshold, l.release_percent
        FROM jsonb_to_recordset(request -> 'levels') AS l (
            name text, action text, threshold numeric, release_percent numeric
        );
    END IF;
    UPDATE margin_profiles AS p SET
        stop_out_policy = coalesce(request ->> 'stop_out_policy', p.stop_out_policy),
        negative_balance_protection = coalesce(
            (request ->> 'negative_balance_protection')::boolean, p.negative_balance_protection
        ),
        version = p.version + 1,
        updated_at = p_at
    WHERE p.name = p_profile.name
    RETURNING p.* INTO STRICT p_profile;
    RETURN p_profile;
END
$$;

GRANT EXECUTE ON FUNCTION list_margin_profiles(integer) TO function_risk_officer;
GRANT EXECUTE ON FUNCTION change_margin_profile(jsonb) TO function_risk_officer;
