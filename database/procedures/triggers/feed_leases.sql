SET LOCAL ROLE trading_procedures;

-- Which copy of a feed writes. One at a time: each taking over raises the fence, and a batch under an older fence is
-- refused by record_quotes. A copy that waits says so in a row of its own, so that the one that writes makes way.

-- request {"version": 1, "name": text}
-- answer  {"granted": true, "fence": n} or {"granted": false, "fence": null} while another copy holds the lease.
-- Not safe to repeat blindly: a repeat after a lost answer waits for the lease that it was granted to run out.
CREATE OR REPLACE FUNCTION acquire_feed_lease(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    -- Shorter than a quote stays fresh, by enough for the next copy to begin; record_quotes has it too.
    c_lease CONSTANT interval := '3 seconds';
    v_now CONSTANT timestamptz := clock_timestamp();
    v_next CONSTANT text := (request ->> 'name') || '/next';
    v_fence bigint;
BEGIN
    PERFORM check_request_version(request);
    INSERT INTO feed_leases AS l (name, fence, expires_at)
    VALUES (request ->> 'name', 1, v_now + c_lease)
    ON CONFLICT (name) DO UPDATE SET fence = l.fence + 1, expires_at = excluded.expires_at
    WHERE l.expires_at <= v_now
    RETURNING l.fence INTO v_fence;

    IF v_fence IS NULL THEN
        -- Said anew at each try, so that nobody makes way for a copy that does not come again.
        INSERT INTO feed_leases AS l (name, fence, expires_at) VALUES (v_next, 1, v_now + c_lease)
        ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at;
    ELSE
        UPDATE feed_leases SET expires_at = v_now WHERE name = v_next;
    END IF;
    RETURN jsonb_build_object('granted', v_fence IS NOT NULL, 'fence', v_fence);
END
$$;

-- Whether another copy waits for the lease. request {"version": 1, "name": text}; answer {"awaited": boolean}
CREATE OR REPLACE FUNCTION feed_lease_awaited(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
BEGIN
    PERFORM check_request_version(request);
    RETURN jsonb_build_object('awaited', EXISTS (
        SELECT FROM feed_leases WHERE name = (request ->> 'name') || '/next' AND expires_at > clock_timestamp()
    ));
END
$$;

-- Give the lease back early, so that the next copy need not wait. Nothing happens when another copy has it already.
-- request {"version": 1, "name": text, "fence": n}; answer {"released": boolean}
CREATE OR REPLACE FUNCTION release_feed_lease(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
BEGIN
    PERFORM check_request_version(request);
    -- The row stays, so that the fence never goes back.
    UPDATE feed_leases SET expires_at = clock_timestamp()
    WHERE name = request ->> 'name' AND fence = (request ->> 'fence')::bigint;
    RETURN jsonb_build_object('released', FOUND);
END
$$;

GRANT EXECUTE ON FUNCTION acquire_feed_lease(jsonb) TO function_prices;
GRANT EXECUTE ON FUNCTION feed_lease_awaited(jsonb) TO function_prices;
GRANT EXECUTE ON FUNCTION release_feed_lease(jsonb) TO function_prices;
