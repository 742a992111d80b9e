SET LOCAL ROLE trading_readers;

-- What the watch over security goes by, as officers see and change it: rules, and networks that are never blocked.

-- -> {rules: [security_rule_view, ...]} by name.
CREATE OR REPLACE FUNCTION list_security_rules() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object('rules', coalesce(jsonb_agg(security_rule_view(r) ORDER BY r.rule), '[]'))
    FROM security_rules AS r
$$;

-- -> {networks: [{network, reason, added_by, added_at}, ...]} in their order.
CREATE OR REPLACE FUNCTION list_never_blocked() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object('networks', coalesce(jsonb_agg(jsonb_build_object(
        'network', n.network, 'reason', n.reason, 'added_by', n.added_by, 'added_at', utc_text(n.added_at)
    ) ORDER BY n.network), '[]'))
    FROM never_blocked AS n
$$;

CREATE OR REPLACE FUNCTION security_rule_view(p_rule security_rules) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(p_rule)
$$;

GRANT EXECUTE ON FUNCTION security_rule_view(security_rules) TO trading_procedures;
GRANT EXECUTE ON FUNCTION list_security_rules() TO function_incidents;
GRANT EXECUTE ON FUNCTION list_never_blocked() TO function_incidents;

SET LOCAL ROLE trading_procedures;

-- Changes what a rule finds and what follows; what it counts, and of whom, is the release's. Holds from the next run.
-- request {version: 1, rule, changes: {threshold?: 1 to 1,000,000, window_seconds?: 10 to 86,400, severity?, enabled?,
--   response?: 'ip_block' of an address, 'account_suspension' of a user, or null, response_seconds?: 1 to 86,400},
--   reason, actor}
-- -> {rule: security_rule_view, changed}; what is set already changes nothing, so that a repeat is answered alike.
-- Raises TR001 no such rule, TR006 a value.
CREATE OR REPLACE FUNCTION change_security_rule(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_before security_rules;
    v_after security_rules;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_reason(request, true);
    SELECT * INTO v_before FROM security_rules AS r WHERE r.rule = request ->> 'rule' FOR NO KEY UPDATE;
    IF v_before.rule IS NULL THEN
        RAISE EXCEPTION 'There is no rule with this name. GET /api/v1/risk/security-rules lists them.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'rule', 'value', left(request ->> 'rule', 100), 'constraint', 'a rule'
        )::text;
    END IF;
    v_after := changed_rule(v_before, request -> 'changes');
    IF v_after IS NOT DISTINCT FROM v_before THEN
        RETURN jsonb_build_object('rule', security_rule_view(v_before), 'changed', false);
    END IF;
    UPDATE security_rules SET
        threshold = v_after.threshold, window_seconds = v_after.window_seconds, severity = v_after.severity,
        enabled = v_after.enabled, response = v_after.response, response_seconds = v_after.response_seconds
    WHERE rule = v_before.rule;
    PERFORM append_platform_audit(request ->> 'actor', 'SECURITY_RULE_CHANGED', jsonb_build_object(
        'rule', v_before.rule, 'before', security_rule_view(v_before), 'after', security_rule_view(v_after)
    ), request ->> 'reason');
    RETURN jsonb_build_object('rule', security_rule_view(v_after), 'changed', true);
END
$$;

-- The rule with what p_changes says; TR006 for a value that it cannot have.
CREATE OR REPLACE FUNCTION changed_rule(p_rule security_rules, p_changes jsonb) RETURNS security_rules
LANGUAGE plpgsql AS $$
DECLARE
    v_bounds record;
    v_fitting CONSTANT text := CASE p_rule.subject WHEN 'address' THEN 'ip_block' ELSE 'account_suspension' END;
BEGIN
    FOR v_bounds IN
        SELECT b.* FROM (VALUES
            ('threshold', 1, 1000000), ('window_seconds', 10, 86400), ('response_seconds', 1, 86400)
        ) AS b (field, least, most)
        WHERE p_changes ->> b.field IS NOT NULL AND NOT (
            pg_input_is_valid(p_changes ->> b.field, 'integer')
            AND (p_changes ->> b.field)::integer BETWEEN b.least AND b.most
        )
    LOOP
        PERFORM refuse_value(
            v_bounds.field, left(p_changes ->> v_bounds.field, 100),
            format('a whole number from %s to %s', v_bounds.least, v_bounds.most)
        );
    END LOOP;
    IF p_changes ->> 'severity' <> ALL (severities()) THEN
        PERFORM refuse_value('severity', left(p_changes ->> 'severity', 100), array_to_string(severities(), ', '));
    ELSIF p_changes ->> 'response' <> v_fitting THEN
        PERFORM refuse_value(
            'response', left(p_changes ->> 'response', 100), format('%s of a rule about an %s, or null', v_fitting,
            p_rule.subject)
        );
    END IF;
    p_rule := jsonb_populate_record(p_rule, p_changes - ARRAY['rule', 'measure', 'subject', 'event_type']);
    IF (p_rule.response IS NULL) <> (p_rule.response_seconds IS NULL) THEN
        PERFORM refuse_value('response_seconds', p_rule.response_seconds::text, 'given with a response, and null without');
    END IF;
    RETURN p_rule;
END
$$;

GRANT EXECUTE ON FUNCTION change_security_rule(jsonb) TO function_incidents;
