SET LOCAL ROLE trading_procedures;

-- What happened at the edge. It is counted there, in Redis or, without it, in security_counters, under keys
-- 'second|type|reason|address|user' whose second is the first of ten; the watch makes rows of it once a minute, so that
-- a flood of requests is no flood of rows.

-- Makes events of what was counted. request {version: 1, batch_id, counts: {key: occurrences}, agents: {key: user
-- agent}, lost: what found no room} -> {recorded, lost}; a batch that comes again adds nothing.
CREATE OR REPLACE FUNCTION record_security_events(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_kept record;
    v_recorded bigint;
BEGIN
    PERFORM check_request_version(request);
    SELECT
        coalesce(jsonb_object_agg(t.key, t.occurrences), '{}') AS counts,
        coalesce(jsonb_object_agg(t.key, t.user_agent), '{}') AS agents
    INTO v_kept FROM take_security_counters() AS t;
    v_recorded := insert_security_events(
        (request ->> 'batch_id')::uuid, request -> 'counts', request -> 'agents', (request ->> 'lost')::bigint
    ) + insert_security_events(
        uuidv7(), v_kept.counts - 'lost', v_kept.agents, coalesce((v_kept.counts ->> 'lost')::bigint, 0)
    );
    RETURN jsonb_build_object(
        'recorded', v_recorded,
        'lost', (request ->> 'lost')::bigint + coalesce((v_kept.counts ->> 'lost')::bigint, 0)
    );
END
$$;

CREATE OR REPLACE FUNCTION take_security_counters()
RETURNS TABLE (key text, occurrences bigint, user_agent text)
LANGUAGE sql AS $$
    DELETE FROM security_counters AS c RETURNING c.key, c.occurrences, c.user_agent
$$;

CREATE OR REPLACE FUNCTION insert_security_events(
    p_batch_id uuid, p_counts jsonb, p_agents jsonb, p_lost bigint
) RETURNS bigint
LANGUAGE sql AS $$
    WITH counted AS (
        SELECT
            row_number() OVER (ORDER BY c.key) AS place, uuidv7() AS id, c.value::bigint AS occurrences,
            string_to_array(c.key, '|') AS parts, p_agents ->> c.key AS user_agent
        FROM jsonb_each_text(p_counts) AS c
    ),
    made AS (
        INSERT INTO security_events (
            id, event_type, severity, reason, user_id, occurrences, occurred_at, batch_id, batch_place
        )
        SELECT
            c.id, c.parts[2], severity_of_event(c.parts[2]), c.parts[3],
            CASE WHEN pg_input_is_valid(c.parts[5], 'uuid') THEN c.parts[5]::uuid END, c.occurrences,
            to_timestamp(c.parts[1]::bigint), p_batch_id, c.place
        FROM counted AS c
        UNION ALL
        SELECT uuidv7(), 'suspicious_activity', 'high', 'events_lost', NULL, p_lost, clock_timestamp(), p_batch_id, 0
        WHERE p_lost > 0
        ON CONFLICT DO NOTHING
        RETURNING id, user_id
    ),
    personal AS (
        INSERT INTO security_pii (row_id, user_id, ip_address, user_agent)
        SELECT m.id, m.user_id, blockable_address(c.parts[4]), left(c.user_agent, 200)
        FROM made AS m INNER JOIN counted AS c USING (id)
    )
    SELECT count(*) FROM made
$$;

CREATE OR REPLACE FUNCTION severity_of_event(p_type text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_type WHEN 'privilege_escalation' THEN 'medium' ELSE 'low' END
$$;

-- Counts one event while Redis is gone; where there is no room any more, that one was lost.
-- request {version: 1, address, user_id?, user_agent?, event: 'type|reason'} -> {}
CREATE OR REPLACE FUNCTION count_security_event(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_key text := concat_ws(
        '|', (floor(extract(epoch FROM clock_timestamp()) / 10) * 10)::bigint, request ->> 'event',
        request ->> 'address', coalesce(request ->> 'user_id', '')
    );
BEGIN
    PERFORM check_request_version(request);
    UPDATE security_counters SET occurrences = occurrences + 1 WHERE key = v_key;
    IF FOUND THEN
        RETURN '{}';
    END IF;
    IF (SELECT count(*) FROM security_counters) >= (SELECT s.counters_max FROM security_settings AS s) THEN
        v_key := 'lost';
    END IF;
    INSERT INTO security_counters AS c (key, occurrences, user_agent)
    VALUES (v_key, 1, CASE WHEN v_key <> 'lost' THEN left(request ->> 'user_agent', 200) END)
    ON CONFLICT (key) DO UPDATE SET occurrences = c.occurrences + 1;
    RETURN '{}';
END
$$;

-- For officers. request {version: 1, event_type?, severity?, user_id?, address?, before?: id, limit?: 1 to 100 (50)}
-- -> {events: [{id, event_type, severity, reason, user_id, ip_address, user_agent, details, occurrences,
--   occurred_at}, ...]}, the newest first.
CREATE OR REPLACE FUNCTION list_security_events(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    RETURN jsonb_build_object('events', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', l.id, 'event_type', l.event_type, 'severity', l.severity, 'reason', l.reason, 'user_id', l.user_id,
            'ip_address', host(l.ip_address), 'user_agent', l.user_agent, 'details', l.details,
            'occurrences', l.occurrences, 'occurred_at', utc_text(l.occurred_at)
        ) ORDER BY l.id DESC), '[]')
        FROM (
            SELECT e.*, p.ip_address, p.user_agent
            FROM security_events AS e
            LEFT JOIN security_pii AS p ON e.id = p.row_id
            WHERE (request ->> 'before' IS NULL OR e.id < (request ->> 'before')::uuid)
                AND (request ->> 'event_type' IS NULL OR e.event_type = request ->> 'event_type')
                AND (request ->> 'severity' IS NULL OR e.severity = request ->> 'severity')
                AND (request ->> 'user_id' IS NULL OR e.user_id = (request ->> 'user_id')::uuid)
                AND (request ->> 'address' IS NULL OR p.ip_address = blockable_address(request ->> 'address'))
            ORDER BY e.id DESC
            LIMIT least(greatest(coalesce((request ->> 'limit')::integer, 50), 1), 100)
        ) AS l
    ));
END
$$;

-- Erases addresses and user agents: of a user, of an address, or with neither all that is older than it is kept, and
-- then events past their days too. A block in force keeps its address, or it would bind nobody.
-- request {version: 1, user_id?, address?, actor?} -> {erased, kept, events_removed}; at most 10,000 rows of each.
CREATE OR REPLACE FUNCTION erase_security_data(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_asked boolean := coalesce(request ->> 'user_id', request ->> 'address') IS NOT NULL;
    v_address inet := blockable_address(request ->> 'address');
    v_settings security_settings;
    v_rows uuid [];
    v_in_force uuid [];
    v_removed bigint := 0;
BEGIN
    PERFORM check_request_version(request);
    SELECT * INTO v_settings FROM security_settings;
    v_rows := array(
        SELECT p.row_id FROM security_pii AS p
        WHERE CASE
            WHEN v_asked THEN p.user_id = (request ->> 'user_id')::uuid OR p.ip_address = v_address
            ELSE p.created_at < clock_timestamp() - v_settings.pii_days * interval '1 day'
        END
        LIMIT 10000
    );
    v_in_force := array(
        SELECT i.id FROM interventions AS i
        WHERE i.id = ANY (v_rows) AND i.undone_at IS NULL AND i.expires_at > clock_timestamp()
    );
    DELETE FROM security_pii WHERE row_id = ANY (v_rows) AND row_id <> ALL (v_in_force);
    IF v_asked THEN
        DELETE FROM security_counters
        WHERE split_part(key, '|', 5) = request ->> 'user_id' OR split_part(key, '|', 4) = host(v_address);
        PERFORM append_platform_audit(request ->> 'actor', 'SECURITY_DATA_ERASED', jsonb_build_object(
            'user_id', request ->> 'user_id', 'rows', cardinality(v_rows) - cardinality(v_in_force)
        ), NULL);
    ELSE
        DELETE FROM security_events WHERE id IN (
            SELECT e.id FROM security_events AS e
            WHERE e.occurred_at < clock_timestamp() - v_settings.event_days * interval '1 day'
            ORDER BY e.occurred_at
            LIMIT 10000
        );
        GET DIAGNOSTICS v_removed = ROW_COUNT;
    END IF;
    RETURN jsonb_build_object(
        'erased', cardinality(v_rows) - cardinality(v_in_force), 'kept', cardinality(v_in_force),
        'events_removed', v_removed
    );
END
$$;

GRANT EXECUTE ON FUNCTION record_security_events(jsonb) TO function_security;
GRANT EXECUTE ON FUNCTION count_security_event(jsonb)
TO function_trader, function_relay, function_operator, function_risk_officer, function_incidents;
GRANT EXECUTE ON FUNCTION list_security_events(jsonb) TO function_incidents;
GRANT EXECUTE ON FUNCTION erase_security_data(jsonb) TO function_security, function_incidents;
