SET LOCAL ROLE trading_procedures;

-- The suspension of an account, begun and taken back by what operators change accounts with.

-- Suspends the account's user by what operators do it with; the account is locked. -> {before: its status}
CREATE OR REPLACE FUNCTION suspend_account(request jsonb, p_account accounts, p_id uuid) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_status text := (SELECT account_status FROM profiles WHERE id = p_account.user_id);
BEGIN
    IF v_status <> 'active' THEN
        RAISE EXCEPTION 'This account is % already: there is nothing to suspend.', v_status
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'target', 'value', p_account.id, 'constraint', 'an active account'
        )::text;
    END IF;
    PERFORM change_account(account_request(request, p_account.user_id, p_account.id) || jsonb_build_object(
        'account_status', 'suspended', 'reason', request ->> 'reason', 'idempotency_key', 'intervention-' || p_id
    ));
    RETURN jsonb_build_object('before', v_status);
END
$$;

-- Gives the account's user the status back that it had. -> {} or {left: the status that somebody gave it meanwhile}.
-- By the audit, because who ends a suspension and begins one of their own leaves the same status behind.
CREATE OR REPLACE FUNCTION restore_account(request jsonb, p_open interventions) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_status text := (SELECT account_status FROM profiles WHERE id = p_open.user_id);
BEGIN
    IF v_status <> 'suspended' OR status_changes_since(p_open.user_id, p_open.started_at) > 1 THEN
        RETURN jsonb_build_object('left', v_status);
    END IF;
    PERFORM change_account(account_request(request, p_open.user_id, p_open.target::uuid) || jsonb_build_object(
        'account_status', p_open.outcome ->> 'before', 'idempotency_key', 'intervention-' || p_open.id || '-undone',
        'reason', coalesce(request ->> 'reason', 'the suspension is over')
    ));
    RETURN '{}';
END
$$;

-- How often the user's status was changed from p_since on, over whichever of their accounts.
CREATE OR REPLACE FUNCTION status_changes_since(p_user_id uuid, p_since timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM order_audit_log AS l
    WHERE l.user_id = p_user_id AND l.id >= uuidv7_floor(p_since) AND l.created_at >= p_since
        AND l.action = 'ACCOUNT_CHANGED' AND l.details -> 'after' ? 'account_status'
$$;

CREATE OR REPLACE FUNCTION account_request(request jsonb, p_user_id uuid, p_account_id uuid) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'version', 1, 'user_id', p_user_id, 'account_id', p_account_id, 'actor', request ->> 'actor',
        'actor_id', request ->> 'actor_id', 'request_id', request ->> 'request_id',
        'ip_address', request ->> 'ip_address', 'user_agent', request ->> 'user_agent', 'email', request ->> 'email'
    ))
$$;
