SET LOCAL ROLE trading_procedures;

-- The next events after each cursor, in order.
--
-- request: {version: 1, limit, reads: [{user_id, account_id, after}]}   limit: events a cursor
-- answer:  [{user_id, account_id, sequence, event_type, payload, request_id, created_at}], ordered within an account
CREATE OR REPLACE FUNCTION read_events(request jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(found) ORDER BY found.account_id, found.sequence), '[]')
    FROM (
        -- Cursors that stand close together read the same rows: each comes once.
        SELECT DISTINCT ON (e.account_id, e.sequence)
            e.user_id, e.account_id, e.sequence, e.event_type, e.payload, e.request_id, e.created_at
        FROM jsonb_to_recordset(request -> 'reads') AS r (user_id uuid, account_id uuid, after bigint)
        CROSS JOIN LATERAL (
            SELECT n.* FROM events n
            WHERE n.user_id = r.user_id AND n.account_id = r.account_id AND n.sequence > r.after
            ORDER BY n.sequence
            LIMIT (request ->> 'limit')::integer
        ) e
    ) found
$$;

GRANT EXECUTE ON FUNCTION read_events(jsonb) TO function_relay;
