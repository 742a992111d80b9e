SET LOCAL ROLE trading_procedures;

-- The part of verify_books about the days of accounts, each of which can be rebuilt from the ledger, and about what
-- risk officers have changed.

-- I2: days follow each other, the account stands in its last one, and each began with the balance that the ledger had
-- then and counted what came in and went out since.
CREATE OR REPLACE FUNCTION books_days() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH days AS (
        SELECT
            d.*,
            lead(d.starts_at) OVER account AS next_starts_at,
            lead(d.ledger_version) OVER account AS next_ledger_version,
            lead(d.starts_at) OVER account IS NULL AS is_last
        FROM account_days AS d
        WINDOW account AS (PARTITION BY d.user_id, d.account_id ORDER BY d.starts_at)
    )
    SELECT d.account_id, d.starts_at::text, 'the next day begins before it ends'
    FROM days AS d
    WHERE d.next_starts_at < d.ends_at
    UNION ALL
    SELECT a.id, 'day', format('its day ends at %s, the last one at %s', a.day_ends_at, d.ends_at)
    FROM accounts AS a
    LEFT JOIN days AS d ON a.user_id = d.user_id AND a.id = d.account_id AND d.is_last
    WHERE a.day_ends_at <> coalesce(d.ends_at, 'epoch')
    UNION ALL
    SELECT d.account_id, d.starts_at::text, format(
        'began with %s, the ledger had %s', d.start_balance, coalesce(e.balance_after, 0)
    )
    FROM days AS d
    LEFT JOIN ledger_entries AS e
        ON d.user_id = e.user_id AND d.account_id = e.account_id AND d.ledger_version = e.entry_number
    WHERE d.start_balance <> coalesce(e.balance_after, 0)
    UNION ALL
    SELECT d.account_id, d.starts_at::text, format(
        '%s came in and went out, the ledger sums to %s', d.transferred, coalesce(sum(e.amount), 0)
    )
    FROM days AS d
    LEFT JOIN ledger_entries AS e
        ON d.user_id = e.user_id AND d.account_id = e.account_id AND e.entry_number > d.ledger_version
        AND (d.is_last OR e.entry_number <= d.next_ledger_version)
        AND e.entry_type NOT IN ('realized_pnl', 'commission', 'financing')
    GROUP BY d.user_id, d.account_id, d.starts_at, d.transferred
    HAVING d.transferred <> coalesce(sum(e.amount), 0)
    UNION ALL
    SELECT d.account_id, d.starts_at::text, format('its peak %s is below what it began with', d.peak_equity)
    FROM days AS d
    WHERE d.peak_equity < d.start_equity + d.transferred
$$;

-- I2: an account's own limits, and a tier's, are what the last change made them; the audit tells each change.
CREATE OR REPLACE FUNCTION books_limits() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH changed AS (
        SELECT DISTINCT ON (c.user_id, c.account_id, c.tier, a.key) c.user_id, c.account_id, c.tier, a.key, a.value
        FROM risk_changes AS c
        CROSS JOIN LATERAL jsonb_each(c.after) AS a
        ORDER BY c.user_id, c.account_id, c.tier, a.key, c.id DESC
    )
    SELECT c.account_id, coalesce(c.tier || ' ', '') || c.key, format(
        'the last change made it %s, it is %s', c.value, n.value
    )
    FROM changed AS c
    LEFT JOIN risk_settings AS r ON c.user_id = r.user_id AND c.account_id = r.account_id
    LEFT JOIN risk_defaults AS d ON c.tier = d.tier
    CROSS JOIN LATERAL (
        SELECT coalesce(CASE WHEN c.tier IS NULL THEN own_limits(r) ELSE limits_of_tier(d) END -> c.key, 'null') AS value
    ) AS n
    WHERE c.value <> n.value
    UNION ALL
    SELECT coalesce(c.account_id, l.account_id), coalesce(c.id::text, l.details ->> 'change_id'),
        'the audit tells another change of limits'
    FROM (SELECT * FROM risk_changes WHERE tier IS NULL) AS c
    FULL JOIN (SELECT * FROM order_audit_log WHERE action = 'RISK_SETTINGS_CHANGED') AS l
        ON c.user_id = l.user_id AND c.id = (l.details ->> 'change_id')::uuid
    WHERE (c.before, c.after) IS DISTINCT FROM (l.details -> 'limits_before', l.details -> 'limits_after')
    UNION ALL
    SELECT NULL, coalesce(c.id::text, l.details ->> 'change_id'), 'the audit tells another change of a tier''s limits'
    FROM (SELECT * FROM risk_changes WHERE tier IS NOT NULL) AS c
    FULL JOIN (SELECT * FROM platform_audit_log WHERE action = 'RISK_DEFAULTS_CHANGED') AS l
        ON c.id = (l.details ->> 'change_id')::uuid
    WHERE (c.tier, c.before, c.after) IS DISTINCT FROM (
        l.details ->> 'tier', l.details -> 'limits_before', l.details -> 'limits_after'
    )
$$;

-- I2: a margin profile is what its last change made it; the audit tells each change, and there are as many as its
-- version says.
CREATE OR REPLACE FUNCTION books_margin_profiles() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT NULL::uuid, p.name || ' ' || a.key, format(
        'the last change made it %s, it is %s', a.value, margin_profile_terms(p) -> a.key
    )
    FROM margin_profiles AS p
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (t.key) t.key, t.value
        FROM margin_profile_changes AS c
        CROSS JOIN LATERAL jsonb_each(c.after) AS t
        WHERE c.profile = p.name
        ORDER BY t.key, c.id DESC
    ) AS a
    WHERE a.value <> margin_profile_terms(p) -> a.key
    UNION ALL
    SELECT NULL, p.name, format('version %s after %s changes', p.version, count(c.id))
    FROM margin_profiles AS p
    LEFT JOIN margin_profile_changes AS c ON p.name = c.profile
    GROUP BY p.name
    HAVING p.version <> count(c.id) + 1
    UNION ALL
    SELECT NULL, coalesce(c.id::text, l.details ->> 'change_id'), 'the audit tells another change of a margin profile'
    FROM margin_profile_changes AS c
    FULL JOIN (SELECT * FROM platform_audit_log WHERE action = 'MARGIN_PROFILE_CHANGED') AS l
        ON c.id = (l.details ->> 'change_id')::uuid
    WHERE (c.profile, c.before, c.after) IS DISTINCT FROM (
        l.details ->> 'profile', l.details -> 'terms_before', l.details -> 'terms_after'
    )
$$;
