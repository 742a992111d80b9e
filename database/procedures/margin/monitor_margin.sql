SET LOCAL ROLE trading_procedures;

-- The scan over all accounts: one page of those with open positions or in an open episode, in key order, behind the
-- last account that a scan looked at. It books nothing but how far it got: record_margin_call and stop_out_step do the
-- rest, account by account.
-- request {version: 1, accounts_max, calls_max}
-- -> {checked, breached, skipped, unpriced: [symbol or currency pair],
--   due: [{user_id, account_id, state: entered | escalated | eased | left | null, stop_out: boolean}], finished}
-- An account is due whose episode changes, or that is to be stopped out; most are both at once. The page ends early
-- behind the calls_max-th that is due, so that none is found and then forgotten.
-- `finished` says that the next scan begins with the first account again.
CREATE OR REPLACE FUNCTION monitor_margin(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_bounds record;
    v_after margin_scan;
    v_at timestamptz;
    v_account_ids uuid [];
    v_page record;
    v_finished boolean;
BEGIN
    PERFORM check_request_version(request);
    v_bounds := page_bounds(request);
    -- Two scans at once take turns: each looks at a page of its own.
    SELECT * INTO v_after FROM margin_scan FOR NO KEY UPDATE;
    v_at := clock_timestamp();
    v_account_ids := watched_accounts(v_after.after_user_id, v_after.after_account_id, v_bounds.accounts_max);
    SELECT * INTO v_page FROM margin_page(v_account_ids, v_bounds.calls_max, v_at);

    -- A full page may be the last one: then the next page is empty, and says so.
    v_finished := v_page.whole AND cardinality(v_account_ids) < v_bounds.accounts_max;
    UPDATE margin_scan SET
        after_user_id = CASE WHEN NOT v_finished THEN v_page.last_user_id END,
        after_account_id = CASE WHEN NOT v_finished THEN v_page.last_account_id END,
        updated_at = v_at;
    RETURN v_page.found || jsonb_build_object('finished', v_finished);
END
$$;

-- The same of the accounts that hold one of the symbols, after a batch of prices. Where it got to is the caller's to
-- keep: it begins behind after_user_id and after_account_id.
-- request {version: 1, symbols: [text], after_user_id?, after_account_id?, accounts_max, calls_max}
-- -> {checked, breached, skipped, unpriced, due, finished, last_user_id, last_account_id}
CREATE OR REPLACE FUNCTION monitor_symbols(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_bounds record;
    v_account_ids uuid [];
    v_page record;
BEGIN
    PERFORM check_request_version(request);
    v_bounds := page_bounds(request);
    v_account_ids := holding_accounts(
        ARRAY(SELECT jsonb_array_elements_text(request -> 'symbols')), (request ->> 'after_user_id')::uuid,
        (request ->> 'after_account_id')::uuid, v_bounds.accounts_max
    );
    SELECT * INTO v_page FROM margin_page(v_account_ids, v_bounds.calls_max, clock_timestamp());
    RETURN v_page.found || jsonb_build_object(
        'finished', v_page.whole AND cardinality(v_account_ids) < v_bounds.accounts_max,
        'last_user_id', v_page.last_user_id, 'last_account_id', v_page.last_account_id
    );
END
$$;

CREATE OR REPLACE FUNCTION page_bounds(request jsonb, OUT accounts_max integer, OUT calls_max integer)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    accounts_max := request ->> 'accounts_max';
    calls_max := request ->> 'calls_max';
    IF accounts_max IS NULL OR accounts_max < 1 THEN
        PERFORM refuse_value('accounts_max', request ->> 'accounts_max', 'at least 1');
    END IF;
    IF calls_max IS NULL OR calls_max < 1 THEN
        PERFORM refuse_value('calls_max', request ->> 'calls_max', 'at least 1');
    END IF;
END
$$;

-- What is due of the accounts, in the order of their keys, cut short behind the p_calls_max-th that is. found is what
-- the answers say of it, whole that it was not cut, last_user_id and last_account_id how far it came.
CREATE OR REPLACE FUNCTION margin_page(
    p_account_ids uuid[], p_calls_max integer, p_at timestamptz, OUT found jsonb, OUT whole boolean,
    OUT last_user_id uuid, OUT last_account_id uuid
)
LANGUAGE sql STABLE AS $$
    WITH levels AS MATERIALIZED (
        SELECT
            l.user_id, l.account_id, l.due, l.stop_out_due, l.breached, l.unpriced,
            row_number() OVER (ORDER BY l.user_id, l.account_id) AS place
        FROM margin_levels(p_account_ids, p_at) AS l
    ),
    due AS MATERIALIZED (
        SELECT l.place, l.user_id, l.account_id, l.due, l.stop_out_due
        FROM levels AS l
        WHERE l.due IS NOT NULL OR l.stop_out_due
        ORDER BY l.place
        LIMIT p_calls_max
    ),
    page AS (
        SELECT l.*
        FROM levels AS l
        WHERE (SELECT count(*) FROM due) < p_calls_max OR l.place <= (SELECT max(d.place) FROM due AS d)
    )
    SELECT
        jsonb_build_object(
            'checked', count(*),
            'breached', count(*) FILTER (WHERE p.breached),
            'skipped', count(*) FILTER (WHERE p.unpriced IS NOT NULL),
            'unpriced', coalesce(jsonb_agg(DISTINCT p.unpriced) FILTER (WHERE p.unpriced IS NOT NULL), '[]'),
            'due', (
                SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'user_id', d.user_id, 'account_id', d.account_id, 'state', d.due, 'stop_out', d.stop_out_due
                ) ORDER BY d.place), '[]')
                FROM due AS d
            )
        ),
        count(*) = cardinality(p_account_ids),
        (array_agg(p.user_id ORDER BY p.place DESC))[1],
        (array_agg(p.account_id ORDER BY p.place DESC))[1]
    FROM page AS p
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

-- Of those, the ones that hold one of p_symbols.
CREATE OR REPLACE FUNCTION holding_accounts(
    p_symbols text[], p_user_id uuid, p_account_id uuid, p_accounts_max integer
) RETURNS uuid[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(h.account_id ORDER BY h.user_id, h.account_id), '{}')
    FROM (
        SELECT DISTINCT p.user_id, p.account_id
        FROM positions AS p
        WHERE p.status = 'open' AND p.symbol = ANY (p_symbols)
            AND (p_user_id IS NULL OR (p.user_id, p.account_id) > (p_user_id, p_account_id))
        ORDER BY p.user_id, p.account_id
        LIMIT p_accounts_max
    ) AS h
$$;

GRANT EXECUTE ON FUNCTION monitor_margin(jsonb) TO function_risk;
GRANT EXECUTE ON FUNCTION monitor_symbols(jsonb) TO function_risk;
