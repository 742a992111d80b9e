SET LOCAL ROLE trading_procedures;

-- I3: each intervention that started, and each that ended, is told once in the platform's audit.
CREATE OR REPLACE FUNCTION books_interventions() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH told AS (
        SELECT
            l.details ->> 'intervention_id' AS id,
            count(*) FILTER (WHERE l.action = 'INTERVENTION_STARTED') AS started,
            count(*) FILTER (WHERE l.action = 'INTERVENTION_ENDED') AS ended
        FROM platform_audit_log AS l
        WHERE l.action IN ('INTERVENTION_STARTED', 'INTERVENTION_ENDED')
        GROUP BY l.details ->> 'intervention_id'
    )
    SELECT NULL::uuid, i.id::text, format(
        'intervention %s: the audit tells of %s starts and %s ends', i.kind, coalesce(t.started, 0), coalesce(t.ended, 0)
    )
    FROM interventions AS i
    LEFT JOIN told AS t ON i.id::text = t.id
    WHERE coalesce(t.started, 0) <> 1 OR coalesce(t.ended, 0) <> (i.undone_at IS NOT NULL)::integer
$$;
