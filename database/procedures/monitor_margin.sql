-- The scan over all accounts: one page of those with open positions or an open margin call, in key order, behind the
-- last account that a scan looked at. It books nothing but how far it got: record_margin_call and stop_out_step do the
-- rest, account by account.
-- request {version: 1, accounts_max, calls_max}
-- -> {checked, breached, skipped, unpriced: [symbol or currency pair],
--   due: [{user_id, account_id, state: entered | left | null, stop_out: boolean}], finished}
-- An account is due whose margin call changes, or that is to be stopped out; most are both at once. The page ends early
-- behind the calls_max-th that is due, so that none is found and then forgotten.
-- `finished` says that the next scan begins with the first account again.
CREATE OR REPLACE FUNCTION monitor_margin(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_accounts_max integer := (request ->> 'accounts_max')::integer;
    v_calls_max integer := (request ->> 'calls_max')::integer;
    v_after margin_scan;
    v_at timestamptz;
    v_account_ids uuid [];
    v_result record;
    v_finished boolean;
BEGIN
    PERFORM check_request_version(request);
    IF v_accounts_max IS NULL OR v_accounts_max < 1 THEN
        PERFORM refuse_value('accounts_max', request ->> 'accounts_max', 'at least 1');
    END IF;
    IF v_calls_max IS NULL OR v_calls_max < 1 THEN
        PERFORM refuse_value('calls_max', request ->> 'calls_max', 'at least 1');
    END IF;
    -- Two scans at once take turns: each looks at a page of its own.
    SELECT * INTO v_after FROM margin_scan FOR NO KEY UPDATE;
    v_at := clock_timestamp();
    v_account_ids := watched_accounts(v_after.after_user_id, v_after.after_account_id, v_accounts_max);

    WITH levels AS MATERIALIZED (
        SELECT l.*, row_number() OVER (ORDER BY l.user_id, l.account_id) AS place
        FROM margin_levels(v_account_ids, v_at) AS l
    ),
    due AS MATERIALIZED (
        SELECT l.place, l.user_id, l.account_id, l.due, l.stop_out_due
        FROM levels AS l
        WHERE l.due IS NOT NULL OR l.stop_out_due
        ORDER BY l.place
        LIMIT v_calls_max
    ),
    page AS (
        SELECT l.*
        FROM levels AS l
        WHERE (SELECT count(*) FROM due) < v_calls_max OR l.place <= (SELECT max(d.place) FROM due AS d)
    )
    SELECT
        count(*) AS checked,
        count(*) FILTER (WHERE p.breached) AS breached,
        count(*) FILTER (WHERE p.unpriced IS NOT NULL) AS skipped,
        coalesce(jsonb_agg(DISTINCT p.unpriced) FILTER (WHERE p.unpriced IS NOT NULL), '[]') AS unpriced,
        (array_agg(p.user_id ORDER BY p.place DESC))[1] AS last_user_id,
        (array_agg(p.account_id ORDER BY p.place DESC))[1] AS last_account_id,
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'user_id', d.user_id, 'account_id', d.account_id, 'state', d.due, 'stop_out', d.stop_out_due
            ) ORDER BY d.place), '[]')
            FROM due AS d
        ) AS due
    INTO v_result
    FROM page AS p;

    -- A full page may be the last one: then the next page is empty, and says so.
    v_finished := v_result.checked = cardinality(v_account_ids) AND v_result.checked < v_accounts_max;
    UPDATE margin_scan SET
        after_user_id = CASE WHEN NOT v_finished THEN v_result.last_user_id END,
        after_account_id = CASE WHEN NOT v_finished THEN v_result.last_account_id END,
        updated_at = v_at;
    RETURN jsonb_build_object(
        'checked', v_result.checked, 'breached', v_result.breached, 'skipped', v_result.skipped,
        'unpriced', v_result.unpriced, 'due', v_result.due, 'finished', v_finished
    );
END
$$;

-- Accounts behind (p_user_id, p_account_id) in key order; from the first one where these are NULL.
CREATE OR REPLACE FUNCTION watched_accounts(p_user_id uuid, p_account_id uuid, p_accounts_max integer) RETURNS uuid[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(w.account_id ORDER BY w.user_id, w.account_id), '{}')
    FROM (
        (
            SELECT DISTINCT p.user_id, p.account_id
            FROM positions AS p
            WHERE p.status = 'open' AND (p_user_id IS NULL OR (p.user_id, p.account_id) > (p_user_id, p_account_id))
            ORDER BY p.user_id, p.account_id
            LIMIT p_accounts_max
        )
        UNION
        (
            SELECT e.user_id, e.account_id
            FROM margin_call_episodes AS e
            WHERE e.left_at IS NULL AND (p_user_id IS NULL OR (e.user_id, e.account_id) > (p_user_id, p_account_id))
            ORDER BY e.user_id, e.account_id
            LIMIT p_accounts_max
        )
        ORDER BY user_id, account_id
        LIMIT p_accounts_max
    ) AS w
$$;

ALTER FUNCTION monitor_margin(jsonb) OWNER TO trading_procedures;
ALTER FUNCTION watched_accounts(uuid, uuid, integer) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION monitor_margin(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION watched_accounts(uuid, uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION monitor_margin(jsonb) TO function_risk;
