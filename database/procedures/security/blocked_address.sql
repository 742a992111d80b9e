SET LOCAL ROLE trading_procedures;

-- Addresses that may be blocked.

-- The address that is counted and blocked for p_ip, as the edge makes it too: a host with IPv6 usually has a whole /64.
-- NULL for what is no address.
CREATE OR REPLACE FUNCTION blockable_address(p_ip text) RETURNS inet
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_ip inet := CASE WHEN pg_input_is_valid(p_ip, 'inet') THEN p_ip END;
BEGIN
    IF v_ip << '::ffff:0:0/96' THEN
        v_ip := replace(host(v_ip), '::ffff:', '')::inet;
    END IF;
    IF v_ip IS NULL OR (masklen(v_ip) < 32 AND family(v_ip) = 4) OR (masklen(v_ip) < 64 AND family(v_ip) = 6) THEN
        RETURN NULL;
    END IF;
    RETURN CASE family(v_ip) WHEN 4 THEN host(v_ip)::inet ELSE host(network(set_masklen(v_ip, 64)))::inet END;
END
$$;

-- The address that a block is asked for: none that is never blocked, and not the one that asks.
CREATE OR REPLACE FUNCTION check_blocked_address(request jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_address inet := blockable_address(request ->> 'target');
BEGIN
    IF v_address IS NULL THEN
        PERFORM refuse_value('target', left(request ->> 'target', 100), 'one IP address');
    END IF;
    IF EXISTS (SELECT FROM never_blocked AS n WHERE n.network >>= v_address) THEN
        PERFORM refuse_value('target', request ->> 'target', 'an address outside the networks that are never blocked');
    END IF;
    IF v_address = blockable_address(request ->> 'ip_address') THEN
        RAISE EXCEPTION 'This is the address that you ask from: a block would lock you out.'
        USING ERRCODE = 'TR011', DETAIL = jsonb_build_object(
            'field', 'target', 'value', request ->> 'target', 'constraint', 'an address of somebody else'
        )::text;
    END IF;
    RETURN host(v_address);
END
$$;
