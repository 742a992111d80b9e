-- What a run of the evaluation has found, booked in one transaction: alerts that open, go on and end, who is told, what
-- is to be done about it. Runs are serialized by the row of alert_evaluation, so that however many copies find the same
-- at once, there is one alert and one message.
--
-- request {version: 1, at?, release?, readings: [{rule, subject, verdict, value, samples}],
--          samples: [{figure, subject, value, samples}]}
-- `at` is the time of the readings, by default the database's clock, and never before the run before. `verdict` is what
-- the figure comes to under the rule: breached, good, between (its two thresholds) or unknown. `samples` are kept for
-- comparisons with the past; `release` is the version that runs.
-- answer {opened: [alert id], cleared: [...], escalated: [...], evaluated_at}
CREATE OR REPLACE FUNCTION record_readings(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at timestamptz;
    v_reading jsonb;
    v_change record;
    v_opened uuid [] := '{}';
    v_cleared uuid [] := '{}';
    v_escalated uuid [];
BEGIN
    PERFORM check_request_version(request);
    v_at := begin_evaluation((request ->> 'at')::timestamptz);
    PERFORM note_release(request ->> 'release', v_at);
    PERFORM keep_samples(request -> 'samples', v_at);
    FOR v_reading IN
        SELECT r.reading FROM jsonb_array_elements(request -> 'readings') AS r (reading)
        ORDER BY r.reading ->> 'rule', r.reading ->> 'subject'
    LOOP
        SELECT * INTO v_change FROM apply_reading(v_reading, v_at);
        v_opened := v_opened || v_change.opened;
        v_cleared := v_cleared || v_change.cleared;
    END LOOP;
    v_escalated := escalate_alerts(v_at);
    RETURN jsonb_build_object(
        'opened', to_jsonb(array_remove(v_opened, NULL)), 'cleared', to_jsonb(array_remove(v_cleared, NULL)),
        'escalated', to_jsonb(v_escalated), 'evaluated_at', utc_text(v_at)
    );
END
$$;

-- Takes the turn of this run and returns its time.
CREATE OR REPLACE FUNCTION begin_evaluation(p_at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE
    v_before timestamptz;
    v_at timestamptz;
BEGIN
    SELECT e.evaluated_at INTO STRICT v_before FROM alert_evaluation AS e FOR NO KEY UPDATE;
    v_at := greatest(coalesce(p_at, clock_timestamp()), v_before);
    UPDATE alert_evaluation SET evaluated_at = v_at;
    RETURN v_at;
END
$$;

-- A release that runs for the first time.
CREATE OR REPLACE FUNCTION note_release(p_version text, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO releases (version, first_seen_at)
    SELECT p_version, p_at WHERE p_version IS NOT NULL
    ON CONFLICT (version) DO NOTHING;
    IF FOUND THEN
        PERFORM append_platform_audit('platform', 'RELEASE_SEEN', jsonb_build_object('version', p_version), NULL);
    END IF;
END
$$;

-- One sample a minute of each figure; two copies in one minute keep the first.
CREATE OR REPLACE FUNCTION keep_samples(p_samples jsonb, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO figure_samples (figure, subject, observed_at, value, samples)
    SELECT s.figure, s.subject, date_trunc('minute', p_at), s.value, s.samples
    FROM jsonb_to_recordset(p_samples) AS s (figure text, subject text, value numeric, samples bigint)
    ON CONFLICT (figure, subject, observed_at) DO NOTHING;
    DELETE FROM figure_samples WHERE observed_at < p_at - interval '14 days';
    DELETE FROM alert_answers WHERE expires_at < p_at;
END
$$;

-- What one reading changes: the id of the alert that it opened or cleared.
CREATE OR REPLACE FUNCTION apply_reading(
    p_reading jsonb, p_at timestamptz, OUT opened uuid, OUT cleared uuid
)
LANGUAGE plpgsql AS $$
DECLARE
    v_rule alert_rules;
    v_alert alerts;
    v_subject text := p_reading ->> 'subject';
    v_verdict text := p_reading ->> 'verdict';
    v_value numeric := (p_reading ->> 'value')::numeric;
    v_condition alert_conditions;
BEGIN
    SELECT * INTO v_rule FROM alert_rules AS r WHERE r.name = p_reading ->> 'rule' AND r.enabled;
    IF v_rule.name IS NULL OR v_verdict = 'unknown' THEN
        RETURN;
    END IF;
    SELECT * INTO v_alert FROM alerts AS a
    WHERE a.rule = v_rule.name AND a.subject = v_subject AND a.state = 'open' FOR NO KEY UPDATE;
    v_condition := note_condition(v_rule.name, v_subject, v_verdict, v_alert.id IS NOT NULL, p_at);
    IF v_alert.id IS NULL THEN
        IF p_at - v_condition.breached_since >= v_rule.for_seconds * interval '1 second' THEN
            opened := open_alert(v_rule, p_reading, p_at);
        END IF;
        RETURN;
    END IF;
    UPDATE alerts AS a SET
        last_value = v_value,
        worst_value = CASE v_rule.comparison
            WHEN 'above' THEN greatest(a.worst_value, v_value) ELSE least(a.worst_value, v_value)
        END,
        last_breached_at = CASE v_verdict WHEN 'breached' THEN p_at ELSE a.last_breached_at END
    WHERE a.id = v_alert.id;
    IF v_verdict = 'breached' THEN
        -- Before the incident is locked, as by report_response.
        PERFORM renew_responses(v_alert.id);
        IF v_rule.tells_worsening AND v_value <> v_alert.last_value
            AND (v_value > v_alert.last_value) = (v_rule.comparison = 'above') THEN
            PERFORM tell_worsening(v_rule, v_alert.id, p_at);
        END IF;
    END IF;
    IF p_at - v_condition.good_since >= v_rule.clear_for_seconds * interval '1 second' THEN
        PERFORM end_alert(v_alert, 'cleared', 'platform', NULL, p_at);
        cleared := v_alert.id;
    END IF;
END
$$;

-- Since when the figure is breached, or good while its alert is open, after this verdict. Between the thresholds an
-- open alert stays, and one that was about to open is forgotten.
CREATE OR REPLACE FUNCTION note_condition(
    p_rule text, p_subject text, p_verdict text, p_is_open boolean, p_at timestamptz
) RETURNS alert_conditions
LANGUAGE plpgsql AS $$
DECLARE
    v_condition alert_conditions;
BEGIN
    IF p_verdict = 'breached' OR (p_verdict = 'good' AND p_is_open) THEN
        INSERT INTO alert_conditions AS c (rule, subject, breached_since, good_since)
        VALUES (
            p_rule, p_subject, CASE p_verdict WHEN 'breached' THEN p_at END, CASE p_verdict WHEN 'good' THEN p_at END
        )
        ON CONFLICT (rule, subject) DO UPDATE SET
            breached_since = CASE p_verdict WHEN 'breached' THEN coalesce(c.breached_since, p_at) END,
            good_since = CASE p_verdict WHEN 'good' THEN coalesce(c.good_since, p_at) END
        RETURNING c.* INTO v_condition;
    ELSE
        DELETE FROM alert_conditions WHERE rule = p_rule AND subject = p_subject;
    END IF;
    RETURN v_condition;
END
$$;

-- Tells of an open alert that is worse than it was at the run before whom its opening was told, acknowledged or not.
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

CREATE OR REPLACE FUNCTION first_addressee(p_rule alert_rules) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT e.addressee FROM alert_escalations AS e WHERE e.policy = p_rule.escalation AND e.level = 1
    ), 'team')
$$;

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

-- Books what was told while the database could not be asked: the alert of its silence, opened when that began, with the
-- messages that went out by themselves. One that is open already stays as it is.
-- request {version: 1, since, notified: [{level, addressee, channel, kind, sent}]}; answer {alert_id}
CREATE OR REPLACE FUNCTION record_outage(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_rule alert_rules;
    v_since timestamptz := least((request ->> 'since')::timestamptz, clock_timestamp());
    v_at timestamptz;
    v_id uuid;
BEGIN
    PERFORM check_request_version(request);
    v_at := begin_evaluation(NULL);
    SELECT * INTO STRICT v_rule FROM alert_rules WHERE name = 'DATABASE_FAILURE';
    SELECT a.id INTO v_id FROM alerts AS a WHERE a.rule = v_rule.name AND a.subject = '' AND a.state = 'open';
    IF v_id IS NULL THEN
        v_id := open_alert(v_rule, '{"subject": "", "value": 0, "samples": 1}', v_since);
        INSERT INTO alert_conditions (rule, subject, breached_since) VALUES (v_rule.name, '', v_since)
        ON CONFLICT (rule, subject) DO UPDATE SET breached_since = excluded.breached_since, good_since = NULL;
    END IF;
    UPDATE alerts SET
        escalation_level = greatest(escalation_level, (
            SELECT max(n.level) FROM jsonb_to_recordset(request -> 'notified') AS n (level integer)
        ))
    WHERE id = v_id;
    -- What did not go out stays in the outbox, and is sent now.
    INSERT INTO alert_notifications AS kept (
        alert_id, kind, level, addressee, channel, state, attempts, due_at, created_at, ended_at
    )
    SELECT v_id, n.kind, n.level, n.addressee, n.channel, 'sent', 1, v_since, v_since, v_at
    FROM jsonb_to_recordset(request -> 'notified') AS n (
        kind text, level integer, addressee text, channel text, sent boolean
    )
    WHERE n.sent
    ON CONFLICT (alert_id, kind, round, level, channel) DO UPDATE SET state = 'sent', attempts = 1, ended_at = v_at
    WHERE kept.state = 'pending';
    RETURN jsonb_build_object('alert_id', v_id);
END
$$;

-- What evaluation goes by: {rules: [...], escalations: [...], channels: [{name, fallback}]}, rules that are enabled.
CREATE OR REPLACE FUNCTION list_alert_rules() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'rules', (SELECT coalesce(jsonb_agg(to_jsonb(r) ORDER BY r.name), '[]') FROM alert_rules AS r WHERE r.enabled),
        'escalations', (
            SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.policy, e.level), '[]') FROM alert_escalations AS e
        ),
        'channels', (SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.name), '[]') FROM alert_channels AS c)
    )
$$;

DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOREACH v_function IN ARRAY ARRAY[
        'record_readings(jsonb)', 'begin_evaluation(timestamptz)', 'note_release(text, timestamptz)',
        'keep_samples(jsonb, timestamptz)', 'apply_reading(jsonb, timestamptz)',
        'note_condition(text, text, text, boolean, timestamptz)', 'open_alert(alert_rules, jsonb, timestamptz)',
        'end_alert(alerts, text, text, text, timestamptz)', 'drop_retries(uuid, timestamptz)',
        'escalate_alerts(timestamptz)', 'tell_worsening(alert_rules, uuid, timestamptz)', 'renew_responses(uuid)',
        'first_addressee(alert_rules)',
        'tell_alert(alerts, text, integer, text, text[], timestamptz)',
        'append_incident_event(uuid, text, text, jsonb, timestamptz)', 'alert_fact(alerts)', 'record_outage(jsonb)'
    ]::regprocedure [] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO trading_procedures', v_function);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END
$$;
ALTER FUNCTION list_alert_rules() OWNER TO trading_readers;
REVOKE ALL ON FUNCTION list_alert_rules() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_readings(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION record_outage(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION list_alert_rules() TO function_alerts;
