SET LOCAL ROLE trading_procedures;

-- Counts one request against sliding-window limits while Redis is gone. The limits are taken in their order; the one
-- that refuses ends it, and its own count does not grow.
-- Before it an address that is blocked is refused, uncounted; what a visitor is refused for is counted as an event, and
-- so is `offence` ('type|reason') where no limit refuses.
-- request {version: 1, window_seconds, limits: [{key, limit, of}, ...], visitor?: {address, user_id?, user_agent?,
--   offence?}}
-- -> {now_us, refused: index or null, seen: [{used, oldest_us}, ...], blocked_until_us, maintenance_until_us,
--   full_maintenance_until_us}; times in µs since 1970, the last three null where there is no block and no maintenance.
CREATE OR REPLACE FUNCTION take_rate_limits(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_window interval := (request ->> 'window_seconds')::integer * interval '1 second';
    v_entry record;
    v_taken timestamptz[];
    v_now timestamptz;
    v_seen jsonb := '[]';
    v_refused integer;
    v_offence text := request #>> '{visitor,offence}';
    v_blocked_until_us bigint := blocked_until_us(request #>> '{visitor,address}');
BEGIN
    PERFORM check_request_version(request);
    IF v_blocked_until_us IS NOT NULL THEN
        PERFORM count_offence(request, 'suspicious_activity|blocked');
        RETURN jsonb_build_object(
            -- Never past the end of the block that refuses.
            'now_us', least(epoch_microseconds(clock_timestamp()), v_blocked_until_us - 1),
            'refused', NULL, 'seen', v_seen, 'blocked_until_us', v_blocked_until_us, 'maintenance_until_us', NULL,
            'full_maintenance_until_us', NULL
        );
    END IF;
    FOR v_entry IN
        SELECT
            (e.position - 1)::integer AS index,
            e.value ->> 'key' AS key,
            (e.value ->> 'limit')::integer AS limit,
            e.value ->> 'of' AS of
        FROM jsonb_array_elements(request -> 'limits') WITH ORDINALITY AS e (value, position)
        ORDER BY e.position
    LOOP
        -- The upsert makes the row or locks it and returns what stands there, in one statement: all racers queue here.
        INSERT INTO rate_limit_counters AS c (key, taken_at, expires_at)
        VALUES (v_entry.key, '{}', clock_timestamp() + v_window)
        ON CONFLICT (key) DO UPDATE SET expires_at = clock_timestamp() + v_window
        RETURNING c.taken_at INTO v_taken;
        -- Read after the lock, so that the times in the row never go backwards.
        v_now := clock_timestamp();
        v_taken := array(SELECT t.at FROM unnest(v_taken) AS t (at) WHERE t.at > v_now - v_window ORDER BY t.at);
        IF cardinality(v_taken) >= v_entry.limit THEN
            v_refused := v_entry.index;
            v_offence := 'rate_limit_exceeded|' || v_entry.of;
        ELSE
            v_taken := v_taken || v_now;
        END IF;
        UPDATE rate_limit_counters SET taken_at = v_taken WHERE key = v_entry.key;
        v_seen := v_seen || jsonb_build_object(
            'used', cardinality(v_taken), 'oldest_us', epoch_microseconds(v_taken[1])
        );
        EXIT WHEN v_refused IS NOT NULL;
    END LOOP;
    PERFORM count_offence(request, v_offence);
    -- Last, because it waits for nobody: whoever waits here for a key holds none that we need.
    PERFORM purge_rate_limits(v_now);
    RETURN jsonb_build_object(
        'now_us', epoch_microseconds(v_now), 'refused', v_refused, 'seen', v_seen, 'blocked_until_us', NULL,
        'maintenance_until_us', maintenance_until_us(), 'full_maintenance_until_us', full_maintenance_until_us()
    );
END
$$;

CREATE OR REPLACE FUNCTION count_offence(request jsonb, p_event text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_event IS NOT NULL AND request ? 'visitor' THEN
        PERFORM count_security_event(
            request -> 'visitor' || jsonb_build_object('version', 1, 'event', p_event)
        );
    END IF;
END
$$;

-- Removes a few keys that count for nothing any more, never one that another caller holds.
CREATE OR REPLACE FUNCTION purge_rate_limits(p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM rate_limit_counters WHERE key IN (
        SELECT key FROM rate_limit_counters WHERE expires_at < p_at
        ORDER BY expires_at LIMIT 10 FOR UPDATE SKIP LOCKED
    )
$$;

CREATE OR REPLACE FUNCTION epoch_microseconds(p_at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM p_at) * 1000000)::bigint
$$;

GRANT EXECUTE ON FUNCTION take_rate_limits(jsonb)
TO function_trader, function_relay, function_operator, function_risk_officer, function_incidents;
