SET LOCAL ROLE trading_procedures;

-- Holds what happened against security_rules. A subject that a rule finds has one finding while that lasts; a new one
-- is told as an event of its own.
-- request {version: 1} -> {opened, ended, due: [{finding_id, rule, severity, observed, window_seconds, response,
--   seconds, target}, ...]}: findings whose response is yet to be made; target is an address or the id of the user's
-- oldest account, null where there is none (any more).
CREATE OR REPLACE FUNCTION evaluate_security(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_settings security_settings;
    v_at timestamptz;
    v_opened bigint;
    v_ended bigint;
BEGIN
    PERFORM check_request_version(request);
    -- Two runs at once would both open a finding.
    SELECT * INTO v_settings FROM security_settings FOR NO KEY UPDATE;
    v_at := clock_timestamp();
    v_opened := note_findings(
        (SELECT jsonb_agg(to_jsonb(m)) FROM security_measures(v_at) AS m), v_settings.findings_per_run_max, v_at
    );
    -- After them, because it counts them.
    v_opened := v_opened + note_findings(
        (SELECT jsonb_agg(to_jsonb(c)) FROM security_correlations(v_at) AS c), v_settings.findings_per_run_max, v_at
    );
    UPDATE security_findings SET ended_at = v_at
    WHERE ended_at IS NULL AND last_seen_at < v_at - window_seconds * interval '1 second';
    GET DIAGNOSTICS v_ended = ROW_COUNT;
    RETURN jsonb_build_object('opened', v_opened, 'ended', v_ended, 'due', due_responses(v_settings.findings_per_run_max));
END
$$;

-- Who does as much as a rule finds, by one statement for each thing that is counted.
CREATE OR REPLACE FUNCTION security_measures(p_at timestamptz)
RETURNS TABLE (rule text, user_id uuid, ip_address inet, observed bigint)
LANGUAGE sql STABLE AS $$
    SELECT r.rule, s.user_id, s.ip_address, sum(e.occurrences)::bigint
    FROM security_rules AS r
    INNER JOIN security_events AS e
        ON r.event_type = e.event_type AND e.reason <> ALL (r.reasons_ignored)
            AND e.occurred_at > p_at - r.window_seconds * interval '1 second'
    LEFT JOIN security_pii AS p ON e.id = p.row_id
    CROSS JOIN LATERAL (
        SELECT
            CASE r.subject WHEN 'user' THEN e.user_id END AS user_id,
            CASE r.subject WHEN 'address' THEN p.ip_address END AS ip_address
    ) AS s
    WHERE r.enabled AND r.measure = 'events' AND coalesce(s.user_id::text, host(s.ip_address)) IS NOT NULL
    GROUP BY r.rule, s.user_id, s.ip_address, r.threshold
    HAVING sum(e.occurrences) >= r.threshold
    UNION ALL
    SELECT r.rule, l.user_id, NULL, count(*)
    FROM security_rules AS r
    INNER JOIN order_audit_log AS l ON l.created_at > p_at - r.window_seconds * interval '1 second'
    -- What the platform submitted has its reason.
    WHERE r.enabled AND r.measure = 'orders' AND l.action = 'SUBMITTED' AND l.reason IS NULL
    GROUP BY r.rule, l.user_id, r.threshold
    HAVING count(*) >= r.threshold
    UNION ALL
    SELECT r.rule, l.user_id, NULL, count(DISTINCT o.symbol)
    FROM security_rules AS r
    INNER JOIN order_audit_log AS l ON l.created_at > p_at - r.window_seconds * interval '1 second'
    INNER JOIN orders AS o ON l.user_id = o.user_id AND l.order_id = o.id
    WHERE r.enabled AND r.measure = 'symbols' AND l.action = 'SUBMITTED' AND l.reason IS NULL
    GROUP BY r.rule, l.user_id, r.threshold
    HAVING count(DISTINCT o.symbol) >= r.threshold
$$;

-- Whether a rule is about how much somebody does: orders, their symbols, requests over a limit. It is one kind however
-- many rules see it, and by itself no threat: a busy day is no attack.
CREATE OR REPLACE FUNCTION is_haste(p_rule security_rules) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_rule.measure IN ('orders', 'symbols') OR coalesce(p_rule.event_type = 'rate_limit_exceeded', false)
$$;

-- How the platform stands by the findings that go on, haste left out: score, 100 less what they weigh (low 1, medium 3,
-- high 10, critical 25), not below 0; threats, how many are high or critical.
CREATE OR REPLACE FUNCTION security_standing(OUT score numeric, OUT threats bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT
        greatest(100 - coalesce(sum(
            CASE f.severity WHEN 'low' THEN 1 WHEN 'medium' THEN 3 WHEN 'high' THEN 10 ELSE 25 END
        ), 0), 0)::numeric,
        count(*) FILTER (WHERE f.severity IN ('high', 'critical'))
    FROM security_findings AS f
    INNER JOIN security_rules AS r ON f.rule = r.rule
    WHERE f.ended_at IS NULL AND NOT is_haste(r)
$$;

-- Whom rules of several kinds have found within a while, not haste alone; one step more severe than the worst of them.
CREATE OR REPLACE FUNCTION security_correlations(p_at timestamptz)
RETURNS TABLE (rule text, user_id uuid, ip_address inet, observed bigint, severity text)
LANGUAGE sql STABLE AS $$
    SELECT
        r.rule, f.user_id, p.ip_address, count(DISTINCT k.kind),
        severity_above(max(array_position(severities(), f.severity)))
    FROM security_rules AS r
    INNER JOIN security_findings AS f ON f.last_seen_at > p_at - r.window_seconds * interval '1 second'
    INNER JOIN security_rules AS q ON f.rule = q.rule AND q.measure <> 'findings' AND q.subject = r.subject
    CROSS JOIN LATERAL (SELECT CASE WHEN is_haste(q) THEN 'haste' ELSE f.rule END AS kind) AS k
    LEFT JOIN security_pii AS p ON f.id = p.row_id
    WHERE r.enabled AND r.measure = 'findings' AND coalesce(f.user_id::text, host(p.ip_address)) IS NOT NULL
    GROUP BY r.rule, f.user_id, p.ip_address, r.threshold
    HAVING count(DISTINCT k.kind) >= r.threshold AND bool_or(k.kind <> 'haste')
$$;

CREATE OR REPLACE FUNCTION severities() RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['low', 'medium', 'high', 'critical']
$$;

CREATE OR REPLACE FUNCTION severity_above(p_position integer) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT (severities())[least(p_position + 1, cardinality(severities()))]
$$;

-- Goes on with the open findings of all who are found now, and opens one for each of the others, at most p_limit, those
-- first who did most; it is told as an event under the finding's id, whose personal data is then one row for both.
-- p_found: [{rule, user_id, ip_address, observed, severity? (the rule's)}, ...], NULL for none. -> how many are new.
CREATE OR REPLACE FUNCTION note_findings(p_found jsonb, p_limit integer, p_at timestamptz) RETURNS bigint
LANGUAGE sql AS $$
    WITH found AS MATERIALIZED (
        SELECT
            m.rule, m.user_id, m.ip_address, m.observed, coalesce(m.severity, r.severity) AS severity, r.threshold,
            r.window_seconds, coalesce(m.user_id::text, host(m.ip_address)) AS subject
        FROM jsonb_to_recordset(p_found) AS m (
            rule text, user_id uuid, ip_address inet, observed bigint, severity text
        )
        INNER JOIN security_rules AS r ON m.rule = r.rule
    ),
    known AS MATERIALIZED (
        SELECT f.id, f.rule, coalesce(f.user_id::text, host(p.ip_address)) AS subject
        FROM security_findings AS f
        LEFT JOIN security_pii AS p ON f.id = p.row_id
        WHERE f.ended_at IS NULL
    ),
    extended AS (
        UPDATE security_findings AS f SET
            last_seen_at = p_at,
            observed = greatest(f.observed::bigint, n.observed),
            severity = (severities())[greatest(
                array_position(severities(), f.severity), array_position(severities(), n.severity)
            )]
        FROM found AS n INNER JOIN known AS k ON n.rule = k.rule AND n.subject = k.subject
        WHERE f.id = k.id
    ),
    fresh AS MATERIALIZED (
        SELECT uuidv7() AS id, n.* FROM found AS n
        LEFT JOIN known AS k ON n.rule = k.rule AND n.subject = k.subject
        WHERE k.id IS NULL
        ORDER BY n.observed DESC, n.subject
        LIMIT p_limit
    ),
    opened AS (
        INSERT INTO security_findings (
            id, rule, user_id, severity, observed, threshold, window_seconds, started_at, last_seen_at
        )
        SELECT n.id, n.rule, n.user_id, n.severity, n.observed, n.threshold, n.window_seconds, p_at, p_at
        FROM fresh AS n
    ),
    told AS (
        INSERT INTO security_events (
            id, event_type, severity, reason, user_id, details, occurrences, occurred_at, batch_id, batch_place
        )
        SELECT n.id, 'suspicious_activity', n.severity, n.rule, n.user_id, jsonb_build_object(
            'observed', n.observed, 'threshold', n.threshold, 'window_seconds', n.window_seconds
        ), 1, p_at, n.id, 0
        FROM fresh AS n
    ),
    personal AS (
        INSERT INTO security_pii (row_id, ip_address)
        SELECT n.id, n.ip_address FROM fresh AS n WHERE n.ip_address IS NOT NULL
    )
    SELECT count(*) FROM fresh
$$;

CREATE OR REPLACE FUNCTION due_responses(p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'finding_id', d.id, 'rule', d.rule, 'severity', d.severity, 'observed', d.observed,
        'window_seconds', d.window_seconds, 'response', d.response, 'seconds', d.response_seconds, 'target', d.target
    ) ORDER BY d.id), '[]')
    FROM (
        SELECT f.id, f.rule, f.severity, f.observed, f.window_seconds, r.response, r.response_seconds, CASE r.response
            WHEN 'ip_block' THEN host(p.ip_address)
            ELSE (SELECT a.id::text FROM accounts AS a WHERE a.user_id = f.user_id ORDER BY a.id LIMIT 1)
        END AS target
        FROM security_findings AS f
        INNER JOIN security_rules AS r ON f.rule = r.rule
        LEFT JOIN security_pii AS p ON f.id = p.row_id
        WHERE f.ended_at IS NULL AND r.response IS NOT NULL AND f.intervention_id IS NULL AND f.response_note IS NULL
        ORDER BY f.id
        LIMIT p_limit
    ) AS d
$$;

-- Why a finding's response was not made. request {version: 1, finding_id, note} -> {}
CREATE OR REPLACE FUNCTION note_security_response(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    UPDATE security_findings SET response_note = left(request ->> 'note', 500)
    WHERE id = (request ->> 'finding_id')::uuid;
    RETURN '{}';
END
$$;

GRANT EXECUTE ON FUNCTION security_standing() TO trading_watchers;
GRANT EXECUTE ON FUNCTION evaluate_security(jsonb) TO function_security;
GRANT EXECUTE ON FUNCTION note_security_response(jsonb) TO function_security, function_alerts;
