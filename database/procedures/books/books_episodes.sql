SET LOCAL ROLE trading_procedures;

-- The part of verify_books about episodes below the margin levels: each stands where the audit says, and was told.

-- MARGIN_CALL_ESCALATED is told as margin_call.escalated.
CREATE OR REPLACE FUNCTION episode_event(p_action text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT regexp_replace(lower(p_action), '_([a-z]+)$', '.\1')
$$;

-- I3: an episode stands at the level of its last row in the audit, is over where that says so, and every row has its
-- event. Rows of earlier releases name no level: there was but the margin call.
CREATE OR REPLACE FUNCTION books_episodes() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH changed AS (
        SELECT
            l.user_id, l.account_id, l.id, l.version, l.created_at, (l.details ->> 'episode_id')::uuid AS episode_id,
            episode_event(l.action) AS event_type, coalesce(l.details ->> 'level', 'margin_call') AS level_name,
            lead(l.id) OVER (PARTITION BY l.user_id, l.details ->> 'episode_id' ORDER BY l.version) IS NULL AS is_last
        FROM order_audit_log AS l
        WHERE l.action LIKE 'MARGIN\_CALL\_%' OR l.action LIKE 'MARGIN\_WARNING\_%'
    ),
    told AS (
        SELECT
            v.user_id, v.account_id, v.id, v.created_at, v.event_type, v.payload -> 'risk' AS risk
        FROM events AS v
        WHERE v.event_type LIKE 'margin\_call.%' OR v.event_type LIKE 'margin\_warning.%'
    )
    SELECT coalesce(e.account_id, c.account_id), coalesce(e.id, c.episode_id)::text,
        'the audit tells another episode below the margin levels'
    FROM margin_call_episodes AS e
    FULL JOIN (SELECT * FROM changed WHERE is_last) AS c ON e.user_id = c.user_id AND e.id = c.episode_id
    WHERE e.id IS NULL OR c.id IS NULL OR e.level_name <> c.level_name OR e.changed_at <> c.created_at
        OR (e.left_at IS NOT NULL) <> (c.event_type LIKE '%.left')
    UNION ALL
    SELECT coalesce(c.account_id, t.account_id), coalesce(c.id, t.id)::text,
        'the events tell otherwise of an episode below the margin levels'
    FROM changed AS c
    FULL JOIN told AS t USING (user_id, account_id, event_type, created_at)
    WHERE c.id IS NULL OR t.id IS NULL OR (t.risk ->> 'episode_id')::uuid IS DISTINCT FROM c.episode_id
        OR coalesce(t.risk ->> 'level', 'margin_call') <> c.level_name
$$;
