SET LOCAL ROLE trading_procedures;

-- Which positions a roll has still to charge.

-- One row for each unfinished roll and each position of these accounts that was open when it came and has no entry of
-- it yet. The quantity is what was open then: what is open now, less what was traded since. A position that has been
-- closed meanwhile is charged, one that was opened meanwhile is not. A cash account borrows nothing and pays nothing.
CREATE OR REPLACE FUNCTION due_financing(p_user_ids uuid[], p_account_ids uuid[])
RETURNS TABLE (
    user_id uuid, account_id uuid, position_id uuid, symbol text, side text, roll_date date, rolled_at timestamptz,
    quantity numeric
)
LANGUAGE sql STABLE AS $$
    WITH rolls AS MATERIALIZED (
        SELECT r.symbol, r.roll_date, r.rolled_at FROM instrument_rolls AS r WHERE r.finished_at IS NULL
    ),
    traded AS MATERIALIZED (
        SELECT f.user_id, f.position_id, f.symbol, f.transact_time,
            CASE f.side WHEN 'buy' THEN f.quantity ELSE -f.quantity END AS bought
        FROM fills AS f
        WHERE f.user_id = ANY (p_user_ids) AND f.account_id = ANY (p_account_ids)
            -- The id of a fill is made after the time that it was traded at.
            AND f.id >= uuidv7_floor((SELECT min(r.rolled_at) FROM rolls AS r))
    ),
    since AS MATERIALIZED (
        SELECT t.user_id, t.position_id, r.roll_date, sum(t.bought) AS bought
        FROM traded AS t
        INNER JOIN rolls AS r ON t.symbol = r.symbol AND t.transact_time > r.rolled_at
        GROUP BY t.user_id, t.position_id, r.roll_date
    ),
    held AS MATERIALIZED (
        SELECT p.* FROM positions AS p
        WHERE p.user_id = ANY (p_user_ids) AND p.account_id = ANY (p_account_ids) AND p.status = 'open'
        UNION ALL
        SELECT p.* FROM positions AS p
        WHERE (p.user_id, p.id) IN (SELECT t.user_id, t.position_id FROM traded AS t) AND p.status = 'closed'
    )
    SELECT h.user_id, h.account_id, h.id, h.symbol, h.side, r.roll_date, r.rolled_at, o.quantity
    FROM held AS h
    INNER JOIN accounts AS a ON h.user_id = a.user_id AND h.account_id = a.id AND a.kind = 'margin'
    INNER JOIN rolls AS r ON h.symbol = r.symbol
    LEFT JOIN since AS s ON h.user_id = s.user_id AND h.id = s.position_id AND r.roll_date = s.roll_date
    CROSS JOIN LATERAL (
        SELECT h.quantity - coalesce(s.bought, 0) * CASE h.side WHEN 'long' THEN 1 ELSE -1 END AS quantity
    ) AS o
    WHERE o.quantity > 0 AND NOT EXISTS (
        SELECT FROM ledger_entries AS e
        WHERE e.user_id = h.user_id AND e.position_id = h.id AND e.roll_date = r.roll_date
            AND e.entry_type = 'financing'
    )
$$;

-- One page of accounts in key order behind (after_user_id, after_account_id), found in one statement; it books nothing.
-- request {version: 1, accounts_max, after_user_id?, after_account_id?}
-- -> {checked, due: [{user_id, account_id}], unsettled: [{symbol, roll_date, lacks}],
--   next: {user_id, account_id} | null}
-- due: accounts with something to charge now. unsettled: rolls that have something to charge in these accounts; `lacks`
-- is what it cannot be charged without yet, 'rate' or 'quote', else NULL. next: where the page behind this one begins,
-- NULL behind the last.
CREATE OR REPLACE FUNCTION find_due_financing(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_accounts_max integer := (request ->> 'accounts_max')::integer;
    v_page jsonb;
    v_users uuid [];
    v_accounts uuid [];
BEGIN
    PERFORM check_request_version(request);
    IF v_accounts_max IS NULL OR v_accounts_max < 1 THEN
        PERFORM refuse_value('accounts_max', request ->> 'accounts_max', 'at least 1');
    END IF;
    SELECT coalesce(array_agg(w.user_id ORDER BY w.user_id, w.account_id), '{}'),
        coalesce(array_agg(w.account_id ORDER BY w.user_id, w.account_id), '{}')
    INTO v_users, v_accounts
    FROM holders_at_rolls(
        (request ->> 'after_user_id')::uuid, (request ->> 'after_account_id')::uuid, v_accounts_max
    ) AS w;

    WITH due AS MATERIALIZED (
        SELECT d.user_id, d.account_id, d.symbol, d.roll_date, CASE
            WHEN r.basis IS NOT NULL THEN NULL
            WHEN EXISTS (SELECT FROM quote_before(d.symbol, d.rolled_at)) THEN 'rate'
            ELSE 'quote'
        END AS lacks
        FROM due_financing(v_users, v_accounts) AS d
        INNER JOIN instrument_rolls AS r ON d.symbol = r.symbol AND d.roll_date = r.roll_date
    )
    SELECT jsonb_build_object(
        'due', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'account_id', a.account_id)
                ORDER BY a.user_id, a.account_id), '[]')
            FROM (SELECT DISTINCT d.user_id, d.account_id FROM due AS d WHERE d.lacks IS NULL) AS a
        ),
        'unsettled', (
            SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object(
                'symbol', d.symbol, 'roll_date', d.roll_date, 'lacks', d.lacks
            )), '[]')
            FROM due AS d
        )
    ) INTO v_page;
    RETURN v_page || jsonb_build_object(
        'checked', cardinality(v_users),
        'next', CASE WHEN cardinality(v_users) = v_accounts_max THEN jsonb_build_object(
            'user_id', v_users[v_accounts_max], 'account_id', v_accounts[v_accounts_max]
        ) END
    );
END
$$;

-- Accounts behind (p_user_id, p_account_id) that hold something or have traded since the first unfinished roll.
CREATE OR REPLACE FUNCTION holders_at_rolls(p_user_id uuid, p_account_id uuid, p_accounts_max integer)
RETURNS TABLE (user_id uuid, account_id uuid)
LANGUAGE sql STABLE AS $$
    (
        SELECT DISTINCT p.user_id, p.account_id
        FROM positions AS p
        WHERE p.status = 'open' AND (p_user_id IS NULL OR (p.user_id, p.account_id) > (p_user_id, p_account_id))
        ORDER BY p.user_id, p.account_id
        LIMIT p_accounts_max
    )
    UNION
    (
        SELECT DISTINCT f.user_id, f.account_id
        FROM fills AS f
        WHERE f.transact_time > (SELECT min(r.rolled_at) FROM instrument_rolls AS r WHERE r.finished_at IS NULL)
            AND (p_user_id IS NULL OR (f.user_id, f.account_id) > (p_user_id, p_account_id))
        ORDER BY f.user_id, f.account_id
        LIMIT p_accounts_max
    )
    ORDER BY user_id, account_id
    LIMIT p_accounts_max
$$;

GRANT EXECUTE ON FUNCTION find_due_financing(jsonb) TO function_end_of_day;
