SET LOCAL ROLE trading_procedures;

-- What automatic responses look up: whom a threat comes from, and which provider the feed is to take.

-- request {version: 1, alert_id, kind: ip_block or account_suspension} -> [{finding_id, target}], see alert_suspects.
CREATE OR REPLACE FUNCTION list_suspects(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    RETURN (
        SELECT coalesce(jsonb_agg(to_jsonb(s) ORDER BY s.finding_id), '[]')
        FROM alert_suspects((request ->> 'alert_id')::uuid, request ->> 'kind') AS s
    );
END
$$;

-- Subjects of high and critical findings, haste left out, that go on and that nobody has stopped or could not:
-- addresses to block, or accounts of users whom several rules have found, one of them for something that was refused
-- for what it was. One rule alone suspends nobody, nor do many orders, symbols and requests: their user may be just
-- busy. One alert stops at most 20 of a kind while it is open; people decide about more.
CREATE OR REPLACE FUNCTION alert_suspects(p_alert_id uuid, p_kind text) RETURNS TABLE (finding_id uuid, target text)
LANGUAGE sql STABLE AS $$
    SELECT f.id, t.target
    FROM security_findings AS f
    INNER JOIN security_rules AS r ON f.rule = r.rule
    LEFT JOIN security_pii AS p ON f.id = p.row_id
    CROSS JOIN LATERAL (SELECT CASE p_kind
        WHEN 'ip_block' THEN host(p.ip_address)
        WHEN 'account_suspension' THEN (
            SELECT a.id::text FROM accounts AS a
            WHERE a.user_id = f.user_id AND r.measure = 'findings' AND was_refused(f)
            ORDER BY a.id
            LIMIT 1
        )
    END AS target) AS t
    WHERE f.ended_at IS NULL AND f.intervention_id IS NULL AND f.response_note IS NULL
        AND f.severity IN ('high', 'critical') AND NOT is_haste(r) AND t.target IS NOT NULL
    ORDER BY f.id
    LIMIT greatest(20 - (
        SELECT count(*) FROM interventions AS i
        WHERE i.kind = p_kind AND starts_with(i.start_key, format('alert-%s-%s/', p_alert_id, p_kind))
    ), 0)
$$;

-- Whether what p_correlation joins holds more than haste.
CREATE OR REPLACE FUNCTION was_refused(p_correlation security_findings) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM security_findings AS f
        INNER JOIN security_rules AS r ON f.rule = r.rule
        WHERE f.user_id = p_correlation.user_id AND r.measure <> 'findings' AND NOT is_haste(r)
            AND f.last_seen_at > p_correlation.started_at - p_correlation.window_seconds * interval '1 second'
    )
$$;

-- Which provider a feed is to take: the one that an intervention in force names, NULL for its own. `running` is the one
-- that it has now, so that the intervention is known to be carried out, and after it, to be taken back.
-- request {version: 1, feed, running} -> {provider}
CREATE OR REPLACE FUNCTION get_feed_provider(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at timestamptz := clock_timestamp();
    v_wanted text;
BEGIN
    PERFORM check_request_version(request);
    SELECT i.parameters ->> 'provider' INTO v_wanted
    FROM interventions AS i
    WHERE i.kind = 'price_provider' AND i.target = request ->> 'feed' AND i.undone_at IS NULL AND i.expires_at > v_at;
    -- Asked each second; only the first answer after a change writes.
    UPDATE interventions AS i SET
        carried_out_at = coalesce(i.carried_out_at, v_at),
        reverted_at = CASE WHEN i.undone_at IS NOT NULL OR i.expires_at <= v_at THEN v_at END
    WHERE i.kind = 'price_provider' AND i.target = request ->> 'feed' AND i.reverted_at IS NULL
        AND CASE
            WHEN i.undone_at IS NULL AND i.expires_at > v_at
                THEN i.carried_out_at IS NULL AND i.parameters ->> 'provider' = request ->> 'running'
            ELSE i.carried_out_at IS NOT NULL
                AND request ->> 'running' IS DISTINCT FROM i.parameters ->> 'provider'
        END;
    RETURN jsonb_build_object('provider', v_wanted);
END
$$;

GRANT EXECUTE ON FUNCTION list_suspects(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION get_feed_provider(jsonb) TO function_prices;
