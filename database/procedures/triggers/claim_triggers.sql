SET LOCAL ROLE trading_procedures;

-- The queue of what prices have touched: who executes what. A lease is of a user's rows, so that two workers do not
-- take turns in one account; what makes a row be executed once is that it goes with its execution.

-- Take a lease on what is queued of up to `users` users, the longest waiting first.
-- request {version: 1, holder, users, limit, lease_ms}
-- -> [{user_id, subject_id, account_id, kind, fencing, attempts}], a user's in the order in which they were touched:
-- those of one batch by the times of their quotes.
-- A user of whom another worker has a row, or is about to, is left out. Leases that ran out are taken over.
CREATE OR REPLACE FUNCTION claim_triggers(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_users uuid [];
    v_claimed jsonb;
BEGIN
    PERFORM check_request_version(request);
    -- The lock keeps two claims that come together from sharing a user's rows; what is leased by now is seen below.
    v_users := ARRAY(
        SELECT u.user_id
        FROM (
            SELECT w.user_id FROM trigger_queue AS w
            GROUP BY w.user_id
            HAVING bool_and(w.lease_expires_at IS NULL OR w.lease_expires_at <= v_at)
            ORDER BY min(w.touched_at)
        ) AS u
        WHERE pg_try_advisory_xact_lock(hashtextextended('claim_triggers ' || u.user_id, 0))
        LIMIT (request ->> 'users')::integer
    );
    WITH free AS MATERIALIZED (
        SELECT w.user_id, w.subject_id
        FROM trigger_queue AS w
        WHERE w.user_id = ANY (v_users) AND NOT EXISTS (
            SELECT FROM trigger_queue AS x WHERE x.user_id = w.user_id AND x.lease_expires_at > v_at
        )
        ORDER BY w.touched_at, w.quoted_at, w.subject_id
        LIMIT (request ->> 'limit')::integer
        FOR UPDATE SKIP LOCKED
    ), leased AS (
        UPDATE trigger_queue AS w SET
            lease_holder = (request ->> 'holder')::uuid,
            lease_fencing = w.lease_fencing + 1,
            lease_expires_at = v_at + (request ->> 'lease_ms')::integer * interval '1 millisecond',
            attempts = w.attempts + 1
        FROM free AS f
        WHERE w.user_id = f.user_id AND w.subject_id = f.subject_id
        RETURNING w.*
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'user_id', l.user_id, 'subject_id', l.subject_id, 'account_id', l.account_id, 'kind', l.kind,
        'fencing', l.lease_fencing, 'attempts', l.attempts
    ) ORDER BY l.touched_at, l.quoted_at, l.subject_id), '[]') INTO v_claimed
    FROM leased AS l;
    RETURN v_claimed;
END
$$;

-- The row of a lease that still stands, locked; all NULL when it is gone or another worker's.
CREATE OR REPLACE FUNCTION leased_trigger(request jsonb) RETURNS trigger_queue
LANGUAGE sql AS $$
    SELECT w.*
    FROM trigger_queue AS w
    WHERE w.user_id = (request ->> 'user_id')::uuid AND w.subject_id = (request ->> 'subject_id')::uuid
        AND w.lease_holder = (request ->> 'holder')::uuid AND w.lease_fencing = (request ->> 'fencing')::bigint
    FOR UPDATE
$$;

GRANT EXECUTE ON FUNCTION claim_triggers(jsonb) TO function_triggers;
