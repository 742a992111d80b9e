SET LOCAL ROLE trading_procedures;

-- By which margin levels accounts are watched: those of their profile, where they have set none of their own.

-- One row an account of p_account_ids (all for NULL), with its balance. A level that its profile does not have is NULL;
-- so is every level of an account that borrows nothing. `outermost` is the highest threshold: above it nothing begins.
CREATE OR REPLACE FUNCTION margin_terms(p_account_ids uuid[])
RETURNS TABLE (
    user_id uuid, account_id uuid, balance numeric, profile text, stop_out_policy text,
    negative_balance_protection boolean, call_threshold numeric, call_release_percent numeric,
    stop_out_threshold numeric, stop_out_release_percent numeric, outermost numeric
)
LANGUAGE sql STABLE AS $$
    WITH levels AS MATERIALIZED (
        SELECT
            p.name AS profile, p.stop_out_policy, p.negative_balance_protection,
            max(l.threshold) FILTER (WHERE l.action = 'warn') AS warning,
            max(l.threshold) FILTER (WHERE l.action = 'call') AS call,
            max(l.release_percent) FILTER (WHERE l.action = 'call') AS call_release_percent,
            max(l.threshold) FILTER (WHERE l.action = 'stop_out') AS stop_out,
            max(l.release_percent) FILTER (WHERE l.action = 'stop_out') AS stop_out_release_percent
        FROM margin_profiles AS p
        LEFT JOIN margin_profile_levels AS l ON p.name = l.profile
        GROUP BY p.name
    )
    SELECT
        a.user_id, a.id, a.balance, l.profile, l.stop_out_policy, l.negative_balance_protection, t.call,
        coalesce(s.margin_call_release_percent, l.call_release_percent), t.stop_out,
        l.stop_out_release_percent, greatest(l.warning, t.call, t.stop_out)
    FROM accounts AS a
    INNER JOIN profiles AS u ON a.user_id = u.id
    INNER JOIN margin_profile_defaults AS d ON a.kind = d.kind AND u.account_tier = d.account_tier
    INNER JOIN levels AS l ON l.profile = coalesce(a.margin_profile, d.profile)
    LEFT JOIN risk_settings AS s ON a.user_id = s.user_id AND a.id = s.account_id
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN l.call IS NOT NULL THEN coalesce(s.margin_call_threshold, l.call) END AS call,
            -- Never above a margin call of the account's own: nobody's positions are closed who was not warned.
            CASE WHEN l.stop_out IS NOT NULL
                THEN least(coalesce(s.stop_out_level, l.stop_out), s.margin_call_threshold)
            END AS stop_out
    ) AS t
    WHERE p_account_ids IS NULL OR a.id = ANY (p_account_ids)
$$;

GRANT EXECUTE ON FUNCTION margin_terms(uuid[]) TO trading_readers;
