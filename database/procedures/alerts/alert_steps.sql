SET LOCAL ROLE trading_procedures;

-- The steps of an alert's life, each with what comes of it: messages, responses, the incident's timeline, the audit.
-- Whoever opens, ends or escalates one has locked the row of alert_evaluation.

-- Opens an alert with all that comes of it: its message to the rule's channels, the responses that are due, the
-- incident of a critical one, the audit.
CREATE OR REPLACE FUNCTION open_alert(p_rule alert_rules, p_reading jsonb, p_at timestamptz) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_alert alerts;
BEGIN
    INSERT INTO alerts (
        rule, subject, severity, threshold, opened_value, last_value, worst_value, samples, opened_at, last_breached_at
    )
    SELECT
        p_rule.name, p_reading ->> 'subject', p_rule.severity, p_rule.threshold, v.value, v.value, v.value,
        (p_reading ->> 'samples')::bigint, p_at, p_at
    FROM (SELECT (p_reading ->> 'value')::numeric AS value) AS v
    RETURNING * INTO v_alert;
    IF v_alert.severity = 'critical' THEN
        INSERT INTO incidents (alert_id, title, opened_at) VALUES (v_alert.id, p_rule.title, p_at);
    END IF;
    INSERT INTO alert_responses (alert_id, kind, created_at)
    SELECT v_alert.id, r.kind, p_at FROM unnest(p_rule.responses) AS r (kind);
    PERFORM append_incident_event(v_alert.id, 'opened', 'platform', alert_fact(v_alert), p_at);
    PERFORM append_platform_audit('platform', 'ALERT_OPENED', alert_fact(v_alert), NULL);
    PERFORM tell_alert(v_alert, 'opened', 1, first_addressee(p_rule), p_rule.channels, p_at);
    RETURN v_alert.id;
END
$$;

-- Tells of an open alert that is worse than it was at the run before, or whose response has failed, whom its opening
-- was told, acknowledged or not.
CREATE OR REPLACE FUNCTION tell_worsening(p_rule alert_rules, p_alert_id uuid, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_alert alerts;
BEGIN
    SELECT * INTO STRICT v_alert FROM alerts AS a WHERE a.id = p_alert_id;
    PERFORM append_incident_event(v_alert.id, 'worsened', 'platform', alert_fact(v_alert), p_at);
    PERFORM append_platform_audit('platform', 'ALERT_WORSENED', alert_fact(v_alert), NULL);
    PERFORM tell_alert(v_alert, 'worsened', 1, first_addressee(p_rule), p_rule.channels, p_at);
END
$$;

-- Responses that stop suspects are due again while somebody is suspect whom they have not answered.
CREATE OR REPLACE FUNCTION renew_responses(p_alert_id uuid) RETURNS void
LANGUAGE sql AS $$
    UPDATE alert_responses AS r SET state = 'due', attempts = 0, ended_at = NULL
    WHERE r.alert_id = p_alert_id AND r.state <> 'due' AND r.kind IN ('ip_block', 'account_suspension')
        AND EXISTS (SELECT FROM alert_suspects(p_alert_id, r.kind))
$$;

-- Ends an open alert and its incident, and tells everybody who was told of it; of what was only news nobody.
CREATE OR REPLACE FUNCTION end_alert(
    p_alert alerts, p_state text, p_actor text, p_note text, p_at timestamptz
) RETURNS alerts
LANGUAGE plpgsql AS $$
DECLARE
    v_alert alerts;
BEGIN
    UPDATE alerts SET
        state = p_state, ended_at = p_at, resolved_by = CASE p_state WHEN 'resolved' THEN p_actor END,
        note = coalesce(p_note, note)
    WHERE id = p_alert.id
    RETURNING * INTO v_alert;
    DELETE FROM alert_conditions WHERE rule = v_alert.rule AND subject = v_alert.subject;
    PERFORM drop_retries(v_alert.id, p_at);
    UPDATE incidents SET closed_at = p_at WHERE alert_id = v_alert.id;
    PERFORM append_incident_event(
        v_alert.id, p_state, p_actor,
        jsonb_strip_nulls(jsonb_build_object('value', v_alert.last_value, 'note', p_note)), p_at
    );
    PERFORM append_platform_audit(p_actor, 'ALERT_' || upper(p_state), alert_fact(v_alert), p_note);
    IF v_alert.severity <> 'info' THEN
        PERFORM tell_alert(v_alert, p_state, v_alert.escalation_level, t.addressee, ARRAY[t.channel], p_at)
        FROM (
            SELECT DISTINCT ON (n.channel) n.channel, n.addressee
            FROM alert_notifications AS n
            WHERE n.alert_id = v_alert.id AND n.instead_of IS NULL AND n.kind IN ('opened', 'escalated')
            ORDER BY n.channel, n.level DESC
        ) AS t;
    END IF;
    RETURN v_alert;
END
$$;

-- What failed and was to be tried again is no news any more once the alert has ended: whoever it was told in place of
-- hears of the end. What somebody is sending just now goes out.
CREATE OR REPLACE FUNCTION drop_retries(p_alert_id uuid, p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
    WITH due_again AS (
        SELECT n.id FROM alert_notifications AS n
        WHERE n.alert_id = p_alert_id AND n.state = 'pending' AND n.last_error IS NOT NULL AND n.lease_holder IS NULL
        ORDER BY n.id
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE alert_notifications AS n SET state = 'failed', ended_at = p_at
    FROM due_again AS d
    WHERE n.id = d.id
$$;

-- Tells the next in line of each open alert that nobody has acknowledged in time; the ids of those alerts.
CREATE OR REPLACE FUNCTION escalate_alerts(p_at timestamptz) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE
    v_due record;
    v_escalated uuid [] := '{}';
BEGIN
    FOR v_due IN
        SELECT a, e.level, e.addressee, e.channels
        FROM alerts AS a
        INNER JOIN alert_rules AS r ON a.rule = r.name
        INNER JOIN alert_escalations AS e ON r.escalation = e.policy AND e.level > a.escalation_level
        WHERE a.state = 'open' AND a.acknowledged_at IS NULL
            AND p_at - a.opened_at >= e.after_seconds * interval '1 second'
        ORDER BY a.id, e.level
    LOOP
        UPDATE alerts SET escalation_level = v_due.level WHERE id = (v_due.a).id;
        PERFORM append_incident_event((v_due.a).id, 'escalated', 'platform', jsonb_build_object(
            'level', v_due.level, 'addressee', v_due.addressee
        ), p_at);
        PERFORM append_platform_audit('platform', 'ALERT_ESCALATED', alert_fact(v_due.a) || jsonb_build_object(
            'level', v_due.level, 'addressee', v_due.addressee
        ), NULL);
        PERFORM tell_alert(v_due.a, 'escalated', v_due.level, v_due.addressee, v_due.channels, p_at);
        v_escalated := v_escalated || (v_due.a).id;
    END LOOP;
    RETURN v_escalated;
END
$$;

CREATE OR REPLACE FUNCTION first_addressee(p_rule alert_rules) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT e.addressee FROM alert_escalations AS e WHERE e.policy = p_rule.escalation AND e.level = 1
    ), 'team')
$$;

-- Puts a message on each channel into the outbox, once; each time that an alert worsens is a round of its own.
CREATE OR REPLACE FUNCTION tell_alert(
    p_alert alerts, p_kind text, p_level integer, p_addressee text, p_channels text[], p_at timestamptz
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO alert_notifications (alert_id, kind, round, level, addressee, channel, due_at, created_at)
    SELECT p_alert.id, p_kind, r.round, p_level, p_addressee, c.channel, p_at, p_at
    FROM unnest(p_channels) AS c (channel)
    CROSS JOIN (
        SELECT 1 + coalesce(max(n.round) FILTER (WHERE p_kind = 'worsened'), 0) AS round
        FROM alert_notifications AS n
        WHERE n.alert_id = p_alert.id AND n.kind = p_kind
    ) AS r
    ON CONFLICT (alert_id, kind, round, level, channel) DO NOTHING
$$;

-- The next line of an incident's timeline; an alert without an incident has none. Places are given under its lock.
CREATE OR REPLACE FUNCTION append_incident_event(
    p_alert_id uuid, p_kind text, p_actor text, p_details jsonb, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_incident_id uuid;
BEGIN
    SELECT i.id INTO v_incident_id FROM incidents AS i WHERE i.alert_id = p_alert_id FOR NO KEY UPDATE;
    INSERT INTO incident_events (incident_id, place, kind, actor, details, created_at)
    SELECT v_incident_id, count(e.place) + 1, p_kind, p_actor, p_details, p_at
    FROM incident_events AS e
    WHERE e.incident_id = v_incident_id
    HAVING v_incident_id IS NOT NULL;
END
$$;

-- An alert as audit and timeline tell it.
CREATE OR REPLACE FUNCTION alert_fact(p_alert alerts) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
        'alert_id', p_alert.id, 'rule', p_alert.rule, 'subject', p_alert.subject, 'severity', p_alert.severity,
        'value', p_alert.last_value, 'threshold', p_alert.threshold, 'samples', p_alert.samples
    )
$$;
