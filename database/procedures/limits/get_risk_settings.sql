SET LOCAL ROLE trading_readers;

-- The limits of an account: {account_id, tier, currency, limits: what binds it, own: its own, as of own_limits, where
-- they are not null, tier_limits, day: {starts_at, ends_at, start_equity, peak_equity} of the open one, else null}.
-- Raises TR001, and TR006 where it has to be named.
CREATE OR REPLACE FUNCTION get_risk_settings(p_user_id uuid, p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account_id uuid;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account_id := resolve_account(p_user_id, p_account_id);
    RETURN (
        SELECT jsonb_build_object(
            'account_id', a.id,
            'tier', l.account_tier,
            'currency', a.currency,
            'limits', (
                SELECT jsonb_object_agg(k.name, to_jsonb(l) -> k.name) FROM limit_kinds() AS k
            ),
            'own', jsonb_strip_nulls(own_limits(r)),
            'tier_limits', limits_of_tier(t),
            'day', (
                SELECT jsonb_build_object(
                    'starts_at', utc_text(d.starts_at), 'ends_at', utc_text(d.ends_at),
                    'start_equity', money_form(d.start_equity, a.currency),
                    'peak_equity', money_form(d.peak_equity, a.currency)
                )
                FROM account_days AS d
                WHERE d.user_id = a.user_id AND d.account_id = a.id AND d.ends_at = a.day_ends_at
                    AND d.ends_at > clock_timestamp()
            )
        )
        FROM accounts AS a
        INNER JOIN risk_settings AS r ON a.user_id = r.user_id AND a.id = r.account_id
        INNER JOIN effective_limits AS l ON a.user_id = l.user_id AND a.id = l.account_id
        INNER JOIN risk_defaults AS t ON l.account_tier = t.tier
        WHERE a.user_id = p_user_id AND a.id = v_account_id
    );
END
$$;

-- The last p_limit changes of an account's limits, newest first: [{id, actor, reason, before, after, changed_at}].
CREATE OR REPLACE FUNCTION list_risk_changes(p_user_id uuid, p_account_id uuid, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    RETURN (
        SELECT coalesce(jsonb_agg(risk_change_fact(c) ORDER BY c.id DESC), '[]') FROM (
            SELECT * FROM risk_changes AS c
            WHERE c.user_id = p_user_id AND c.account_id = p_account_id
            ORDER BY c.id DESC LIMIT p_limit
        ) AS c
    );
END
$$;

GRANT EXECUTE ON FUNCTION get_risk_settings(uuid, uuid) TO function_trader, function_risk_officer;
GRANT EXECUTE ON FUNCTION list_risk_changes(uuid, uuid, integer) TO function_risk_officer;

SET LOCAL ROLE trading_procedures;

-- The tiers and their limits: [{tier, limits, updated_at, changes: the last p_limit ones}], as an officer sees them.
CREATE OR REPLACE FUNCTION list_risk_defaults(p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_agg(jsonb_build_object(
        'tier', d.tier, 'limits', limits_of_tier(d), 'updated_at', utc_text(d.updated_at), 'changes', (
            SELECT coalesce(jsonb_agg(risk_change_fact(c) ORDER BY c.id DESC), '[]') FROM (
                SELECT * FROM risk_changes AS c WHERE c.tier = d.tier ORDER BY c.id DESC LIMIT p_limit
            ) AS c
        )
    ) ORDER BY array_position(ARRAY['bronze', 'silver', 'gold', 'platinum'], d.tier))
    FROM risk_defaults AS d
$$;

CREATE OR REPLACE FUNCTION risk_change_fact(p_change risk_changes) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', p_change.id, 'actor', p_change.actor, 'reason', p_change.reason, 'before', p_change.before,
        'after', p_change.after, 'changed_at', utc_text(p_change.changed_at)
    )
$$;

GRANT EXECUTE ON FUNCTION risk_change_fact(risk_changes) TO trading_readers;
GRANT EXECUTE ON FUNCTION list_risk_defaults(integer) TO function_risk_officer;
