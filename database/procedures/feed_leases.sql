-- Which copy of a feed writes. One at a time: each taking over raises the fence, and a batch under an older fence is
-- refused by record_quotes.

-- request {"version": 1, "name": text}
-- answer  {"granted": true, "fence": n} or {"granted": false, "fence": null} while another copy holds the lease.
-- Not safe to repeat blindly: a repeat after a lost answer waits for the lease that it was granted to run out.
CREATE OR REPLACE FUNCTION acquire_feed_lease(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    c_lease CONSTANT interval := '5 seconds';
    v_now CONSTANT timestamptz := clock_timestamp();
    v_fence bigint;
BEGIN
    PERFORM check_request_version(request);
    INSERT INTO feed_leases AS l (name, fence, expires_at)
    VALUES (request ->> 'name', 1, v_now + c_lease)
    ON CONFLICT (name) DO UPDATE SET fence = l.fence + 1, expires_at = excluded.expires_at
    WHERE l.expires_at <= v_now
    RETURNING l.fence INTO v_fence;
    RETURN jsonb_build_object('granted', v_fence IS NOT NULL, 'fence', v_fence);
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

ALTER FUNCTION acquire_feed_lease(jsonb) OWNER TO trading_procedures;
ALTER FUNCTION release_feed_lease(jsonb) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION acquire_feed_lease(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION release_feed_lease(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acquire_feed_lease(jsonb) TO function_prices;
GRANT EXECUTE ON FUNCTION release_feed_lease(jsonb) TO function_prices;
