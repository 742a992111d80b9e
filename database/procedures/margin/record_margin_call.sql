SET LOCAL ROLE trading_procedures;

-- One account's episode below its margin levels: valued again under the account's lock, then the episode opened, moved
-- to another level or closed, with audit and event, in one transaction. Safe to repeat, and at once from two places:
-- who comes second finds nothing due.
-- request {version: 1, user_id, account_id, request_id?}
-- -> {state: entered | escalated | eased | left | unchanged | skipped, level, margin_level, threshold, sequence}
-- `skipped`: a quote that the valuation needs is missing or too old. `level` and `threshold` are of the level that the
-- account stands at, or has left. `sequence` is that of the event, else NULL.
-- One plan for whatever account: planning margin_levels for each anew took four times as long as running it.
CREATE OR REPLACE FUNCTION record_margin_call(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_account accounts;
    v_at timestamptz;
    v_level record;
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    v_at := clock_timestamp();
    SELECT * INTO STRICT v_level FROM margin_levels(ARRAY[v_account.id], v_at);

    IF v_level.due = 'entered' THEN
        v_level.episode_id := uuidv7();
        INSERT INTO margin_call_episodes (
            user_id, id, account_id, level_name, level_action, threshold, release_level, entered_at, entered_level,
            entered_equity, entered_margin_used, changed_at
        ) VALUES (
            v_account.user_id, v_level.episode_id, v_account.id, v_level.level_name, v_level.level_action,
            v_level.threshold, v_level.release_level, v_at, v_level.margin_level, v_level.equity, v_level.margin_used,
            v_at
        );
    ELSIF v_level.due = 'left' THEN
        UPDATE margin_call_episodes SET
            left_at = v_at, left_level = v_level.margin_level, left_equity = v_level.equity, changed_at = v_at
        WHERE user_id = v_account.user_id AND id = v_level.episode_id;
    ELSIF v_level.due IS NOT NULL THEN
        UPDATE margin_call_episodes SET
            level_name = v_level.level_name, level_action = v_level.level_action, threshold = v_level.threshold,
            release_level = v_level.release_level, changed_at = v_at
        WHERE user_id = v_account.user_id AND id = v_level.episode_id;
    END IF;

    IF v_level.due IS NOT NULL THEN
        PERFORM tell_margin_call(v_account, jsonb_build_object(
            'type', CASE v_level.level_action WHEN 'warn' THEN 'margin_warning' ELSE 'margin_call' END,
            'state', v_level.due, 'level', v_level.level_name,
            'episode_id', v_level.episode_id, 'margin_level', round(v_level.margin_level, 2),
            'threshold', v_level.threshold
        ), account_fact(
            v_account, v_account.balance, v_level.unrealized_pnl, v_level.margin_used, v_level.hedged_margin_credit
        ), request ->> 'request_id', v_at);
    END IF;
    RETURN jsonb_build_object(
        'state', coalesce(v_level.due, CASE WHEN v_level.unpriced IS NULL THEN 'unchanged' ELSE 'skipped' END),
        'level', v_level.level_name, 'margin_level', round(v_level.margin_level, 2), 'threshold', v_level.threshold,
        'sequence', CASE WHEN v_level.due IS NOT NULL THEN v_account.last_sequence + 1 END
    );
END
$$;

-- Audit row, account row and event row of a change of an episode; p_risk {type, state, level, episode_id, margin_level,
-- threshold}, p_fact the account's worth. MARGIN_CALL_ESCALATED in the audit is margin_call.escalated among the events.
-- The caller holds the account's lock.
CREATE OR REPLACE FUNCTION tell_margin_call(
    p_account accounts, p_risk jsonb, p_fact jsonb, p_request_id text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_head bytea;
BEGIN
    v_head := append_audit(p_account, NULL, ARRAY[ROW(
        upper((p_risk ->> 'type') || '_' || (p_risk ->> 'state')), NULL,
        (p_risk - 'type' - 'state') || jsonb_build_object(
            'equity', p_fact -> 'equity', 'margin_used', p_fact -> 'margin_used'
        ), NULL, NULL
    )::audit_entry], p_at);
    UPDATE accounts SET
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 1,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, (p_risk ->> 'type') || '.' || (p_risk ->> 'state'),
        jsonb_build_object('account', p_fact, 'risk', p_risk), p_request_id, p_at
    );
END
$$;

GRANT EXECUTE ON FUNCTION record_margin_call(jsonb) TO function_risk;
