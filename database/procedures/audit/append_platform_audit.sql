SET LOCAL ROLE trading_procedures;

-- The chain of what concerns no account: releases, platform settings.

CREATE OR REPLACE FUNCTION platform_audit_bytes_v1(
    p_version bigint, p_actor text, p_action text, p_details jsonb, p_reason text, p_created_at timestamptz
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT convert_to(jsonb_build_array(
        1, 'platform', p_version, p_actor, p_action, p_details, p_reason, utc_text(p_created_at)
    )::text, 'UTF8')
$$;

CREATE OR REPLACE FUNCTION append_platform_audit(p_actor text, p_action text, p_details jsonb, p_reason text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_head platform_audit_head;
    v_hash bytea;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_head FROM platform_audit_head FOR NO KEY UPDATE;
    v_at := clock_timestamp();
    v_hash := sha256(v_head.audit_head || platform_audit_bytes_v1(
        v_head.audit_version + 1, p_actor, p_action, p_details, p_reason, v_at
    ));
    INSERT INTO platform_audit_log (version, actor, action, details, reason, previous_hash, hash, hash_version, created_at)
    VALUES (
        v_head.audit_version + 1, p_actor, p_action, p_details, p_reason, v_head.audit_head, v_hash, 1, v_at
    );
    UPDATE platform_audit_head SET audit_version = audit_version + 1, audit_head = v_hash;
END
$$;

-- Whether markets are traded outside their hours, as on a demonstration system. request {version: 1, trade_always,
-- actor, reason}
CREATE OR REPLACE FUNCTION set_trade_always(request jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_wanted boolean := (request ->> 'trade_always')::boolean;
BEGIN
    PERFORM check_request_version(request);
    UPDATE platform_settings SET trade_always = v_wanted, updated_at = clock_timestamp()
    WHERE trade_always IS DISTINCT FROM v_wanted;
    IF FOUND THEN
        PERFORM append_platform_audit(
            request ->> 'actor', 'TRADE_ALWAYS_SET', jsonb_build_object('trade_always', v_wanted), request ->> 'reason'
        );
    END IF;
END
$$;
