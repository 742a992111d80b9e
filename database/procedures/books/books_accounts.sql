SET LOCAL ROLE trading_procedures;

-- The part of verify_books about what operators did: it can be rebuilt from the audit, and was told.

-- Every change of a term of a user or an account, as the audit tells it: the last one and the one before it.
-- Terms of the profile are the user's, whichever account they were changed by.
CREATE OR REPLACE FUNCTION audited_terms()
RETURNS TABLE (
    user_id uuid, account_id uuid, field text, before jsonb, after jsonb, said_before jsonb, is_last boolean
)
LANGUAGE sql STABLE AS $$
    SELECT
        l.user_id, l.account_id, c.key, l.details -> 'before' -> c.key, c.value, lag(c.value) OVER term,
        lead(c.value) OVER term IS NULL
    FROM order_audit_log AS l
    CROSS JOIN LATERAL jsonb_each(l.details -> 'after') AS c
    WHERE l.action = 'ACCOUNT_CHANGED'
    WINDOW term AS (
        PARTITION BY l.user_id, CASE
            WHEN c.key IN ('leverage', 'position_mode', 'margin_profile', 'trading_state') THEN l.account_id
        END, c.key
        ORDER BY l.created_at, l.version
    )
$$;

-- I2: terms are what the audit's last change made them, and each change began where the one before it ended.
CREATE OR REPLACE FUNCTION books_accounts() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT t.account_id, t.field, format('the audit''s last change made it %s, it is %s', t.after, n.value)
    FROM audited_terms() AS t
    INNER JOIN accounts AS a ON t.user_id = a.user_id AND t.account_id = a.id
    INNER JOIN profiles AS p ON t.user_id = p.id
    CROSS JOIN LATERAL (
        SELECT jsonb_build_object(
            'kyc_status', p.kyc_status, 'account_status', p.account_status, 'account_tier', p.account_tier,
            'leverage', a.leverage, 'position_mode', a.position_mode, 'margin_profile', a.margin_profile,
            'trading_state', a.trading_state
        ) -> t.field AS value
    ) AS n
    WHERE t.is_last AND t.after IS DISTINCT FROM n.value
    UNION ALL
    SELECT t.account_id, t.field, format('changed from %s, where the audit had left it at %s', t.before, t.said_before)
    FROM audited_terms() AS t
    WHERE t.said_before <> t.before
$$;

-- I3: each movement of money without a fill and each change by an operator has its event, and no event tells of one
-- that was not.
CREATE OR REPLACE FUNCTION books_operator_events() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH done AS (
        SELECT
            l.user_id, l.account_id, l.id, operator_event(l.action) AS event_type, l.created_at,
            (l.details ->> 'balance_after')::numeric AS balance, l.details -> 'after' AS after
        FROM order_audit_log AS l
        WHERE l.action IN (
            'DEPOSITED', 'WITHDRAWN', 'ADJUSTED', 'WITHDRAWAL_REFUSED', 'ACCOUNT_CHANGED', 'RISK_SETTINGS_CHANGED',
            'BALANCE_PROTECTED'
        )
    ),
    told AS (
        SELECT v.user_id, v.account_id, v.id, v.event_type, v.created_at, v.payload -> 'account' AS account
        FROM events AS v
        WHERE v.event_type IN (
            'account.deposited', 'account.withdrawn', 'account.adjusted', 'account.withdrawal_refused',
            'account.changed', 'account.risk_settings_changed', 'account.balance_protected'
        )
    )
    SELECT
        coalesce(d.account_id, t.account_id), coalesce(d.id, t.id)::text,
        'the events tell otherwise of what an operator did'
    FROM done AS d
    FULL JOIN told AS t USING (user_id, account_id, event_type, created_at)
    WHERE d.id IS NULL OR t.id IS NULL
        OR d.balance <> (t.account ->> 'balance')::numeric
        OR NOT t.account @> coalesce(d.after, '{}')
$$;
