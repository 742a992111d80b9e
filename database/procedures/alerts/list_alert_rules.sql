SET LOCAL ROLE trading_readers;

-- What evaluation goes by: {rules: [...], escalations: [...], channels: [{name, fallback}]}, rules that are enabled.
CREATE OR REPLACE FUNCTION list_alert_rules() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'rules', (SELECT coalesce(jsonb_agg(to_jsonb(r) ORDER BY r.name), '[]') FROM alert_rules AS r WHERE r.enabled),
        'escalations', (
            SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.policy, e.level), '[]') FROM alert_escalations AS e
        ),
        'channels', (SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.name), '[]') FROM alert_channels AS c)
    )
$$;

GRANT EXECUTE ON FUNCTION list_alert_rules() TO function_alerts;
