SET LOCAL ROLE trading_procedures;

-- I3: an alert is told in the platform's audit as it stands, to somebody each time that it opened, escalated or
-- worsened, and a critical one by an incident whose timeline has no gap and ends with it.
CREATE OR REPLACE FUNCTION books_alerts() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH told AS (
        SELECT
            l.details ->> 'alert_id' AS id,
            count(*) FILTER (WHERE l.action = 'ALERT_OPENED') AS opened,
            count(*) FILTER (WHERE l.action = 'ALERT_ACKNOWLEDGED') AS acknowledged,
            count(*) FILTER (WHERE l.action = 'ALERT_CLEARED') AS cleared,
            count(*) FILTER (WHERE l.action = 'ALERT_RESOLVED') AS resolved,
            count(*) FILTER (WHERE l.action = 'ALERT_WORSENED') AS worsened,
            array_agg((l.details ->> 'level')::integer) FILTER (WHERE l.action = 'ALERT_ESCALATED') AS levels
        FROM platform_audit_log AS l
        WHERE l.details ? 'alert_id'
        GROUP BY l.details ->> 'alert_id'
    ),
    lines AS (
        SELECT e.incident_id, count(*) AS events, max(e.place) AS last_place,
            bool_or(e.kind IN ('cleared', 'resolved')) AS ended,
            bool_or(e.kind = 'opened' AND e.place = 1) AS opened,
            count(*) FILTER (WHERE e.kind = 'worsened') AS worsened
        FROM incident_events AS e
        GROUP BY e.incident_id
    )
    SELECT NULL::uuid, a.id::text, format('the audit tells another life of alert %s', a.rule)
    FROM alerts AS a
    LEFT JOIN told AS t ON a.id::text = t.id
    WHERE (t.opened, t.acknowledged, t.cleared, t.resolved) IS DISTINCT FROM (
        1, (a.acknowledged_at IS NOT NULL)::integer, (a.state = 'cleared')::integer, (a.state = 'resolved')::integer
    )
    UNION ALL
    SELECT NULL, a.id::text, format('nobody is told of alert %s', a.rule)
    FROM alerts AS a
    WHERE NOT EXISTS (
        SELECT FROM alert_notifications AS n WHERE n.alert_id = a.id AND n.kind = 'opened' AND n.state <> 'failed'
    )
    UNION ALL
    SELECT NULL, a.id::text, format('nobody is told that alert %s has escalated to level %s', a.rule, e.level)
    FROM alerts AS a
    INNER JOIN told AS t ON a.id::text = t.id
    CROSS JOIN LATERAL unnest(t.levels) AS e (level)
    WHERE NOT EXISTS (
        SELECT FROM alert_notifications AS n
        WHERE n.alert_id = a.id AND n.kind = 'escalated' AND n.level = e.level AND n.state <> 'failed'
    )
    UNION ALL
    SELECT NULL, a.id::text, format('alert %s worsened %s times by the audit, of %s somebody is told', a.rule,
        coalesce(t.worsened, 0), n.rounds)
    FROM alerts AS a
    LEFT JOIN told AS t ON a.id::text = t.id
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT m.round) AS rounds FROM alert_notifications AS m
        WHERE m.alert_id = a.id AND m.kind = 'worsened' AND m.state <> 'failed'
    ) AS n
    WHERE n.rounds <> coalesce(t.worsened, 0)
    UNION ALL
    SELECT NULL, a.id::text, format('the incident of alert %s is missing, or tells another life', a.rule)
    FROM alerts AS a
    LEFT JOIN told AS t ON a.id::text = t.id
    LEFT JOIN incidents AS i ON a.id = i.alert_id
    LEFT JOIN lines AS l ON i.id = l.incident_id
    WHERE (a.severity = 'critical') <> (i.id IS NOT NULL)
        OR (i.id IS NOT NULL AND (i.closed_at, l.opened, l.ended, l.last_place::bigint, l.worsened) IS DISTINCT FROM (
            a.ended_at, true, a.state <> 'open', l.events, coalesce(t.worsened, 0)
        ))
$$;
