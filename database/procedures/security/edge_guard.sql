SET LOCAL ROLE trading_procedures;

-- What the edge asks before anything else: is this address blocked, is there maintenance. The tables are the truth; the
-- edge keeps a copy in Redis, and asks here while it has none.

-- What the copy holds. -> {version, maintenance_until_us or null, full_maintenance_until_us or null (of that alone in
-- which nothing changes), blocks: {address: until_us}}; times in µs since 1970, addresses as blockable_address makes
-- them. At most 10,000 blocks, those that last longest.
CREATE OR REPLACE FUNCTION read_edge_guard() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'version', (SELECT g.version FROM edge_guard AS g),
        'maintenance_until_us', maintenance_until_us(),
        'full_maintenance_until_us', full_maintenance_until_us(),
        'blocks', (
            SELECT coalesce(jsonb_object_agg(host(b.address), b.until_us), '{}') FROM (
                SELECT * FROM blocked_addresses() ORDER BY until_us DESC LIMIT 10000
            ) AS b
        )
    )
$$;

-- The addresses that are blocked now, each with the end of its block.
CREATE OR REPLACE FUNCTION blocked_addresses() RETURNS TABLE (address inet, until_us bigint)
LANGUAGE sql STABLE AS $$
    SELECT p.ip_address, max(epoch_microseconds(i.expires_at))
    FROM interventions AS i
    INNER JOIN security_pii AS p ON i.id = p.row_id
    WHERE i.kind = 'ip_block' AND i.undone_at IS NULL AND i.expires_at > clock_timestamp()
        AND NOT EXISTS (SELECT FROM never_blocked AS n WHERE n.network >>= p.ip_address)
    GROUP BY p.ip_address
$$;

CREATE OR REPLACE FUNCTION maintenance_until_us() RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT max(epoch_microseconds(i.expires_at)) FROM interventions AS i
    WHERE i.kind = 'maintenance' AND i.undone_at IS NULL AND i.expires_at > clock_timestamp()
$$;

CREATE OR REPLACE FUNCTION full_maintenance_until_us() RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT max(epoch_microseconds(i.expires_at)) FROM interventions AS i
    WHERE i.kind = 'maintenance' AND i.undone_at IS NULL AND i.expires_at > clock_timestamp()
        AND i.parameters ->> 'level' = 'full'
$$;

CREATE OR REPLACE FUNCTION blocked_until_us(p_address text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT max(epoch_microseconds(i.expires_at)) FROM security_pii AS p
    INNER JOIN interventions AS i ON p.row_id = i.id
    WHERE p.ip_address = blockable_address(p_address) AND i.kind = 'ip_block' AND i.undone_at IS NULL
        AND i.expires_at > clock_timestamp()
        AND NOT EXISTS (SELECT FROM never_blocked AS n WHERE n.network >>= p.ip_address)
$$;

-- Adds a network to those that are never blocked, or takes it away; a block inside it stops to bind at once. One of
-- half the internet would be the end of all blocks: at most a /16 of IPv4, a /32 of IPv6.
-- request {version: 1, action: 'add' or 'remove', network: CIDR, reason, actor} -> {version: of the guard, changed}
CREATE OR REPLACE FUNCTION change_never_blocked(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_text text := request ->> 'network';
    v_version bigint;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_reason(request, true);
    IF NOT coalesce(pg_input_is_valid(v_text, 'cidr'), false) THEN
        PERFORM refuse_value('network', left(v_text, 100), 'a network as 192.0.2.0/24');
    END IF;
    IF request ->> 'action' = 'add'
        AND masklen(v_text::cidr) < (CASE family(v_text::cidr) WHEN 4 THEN 16 ELSE 32 END) THEN
        PERFORM refuse_value('network', left(v_text, 100), 'at most a /16 of IPv4 or a /32 of IPv6');
    END IF;
    IF NOT coalesce(request ->> 'action' IN ('add', 'remove'), false) THEN
        PERFORM refuse_value('action', left(request ->> 'action', 100), 'add or remove');
    END IF;
    PERFORM lock_interventions();
    IF request ->> 'action' = 'add' THEN
        INSERT INTO never_blocked (network, reason, added_by)
        VALUES (v_text::cidr, request ->> 'reason', request ->> 'actor')
        ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM never_blocked WHERE network = v_text::cidr;
    END IF;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('version', (SELECT g.version FROM edge_guard AS g), 'changed', false);
    END IF;
    UPDATE edge_guard SET version = version + 1 RETURNING version INTO v_version;
    PERFORM append_platform_audit(
        request ->> 'actor', 'NEVER_BLOCKED_CHANGED',
        jsonb_build_object('action', request ->> 'action', 'network', v_text::cidr), request ->> 'reason'
    );
    RETURN jsonb_build_object('version', v_version, 'changed', true);
END
$$;

GRANT EXECUTE ON FUNCTION read_edge_guard()
TO function_trader, function_relay, function_operator, function_risk_officer, function_incidents, function_security,
function_alerts;
GRANT EXECUTE ON FUNCTION change_never_blocked(jsonb) TO function_incidents;
