SET LOCAL ROLE trading_procedures;

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

GRANT EXECUTE ON FUNCTION record_readings(jsonb) TO function_alerts;
