SET LOCAL ROLE trading_procedures;

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

GRANT EXECUTE ON FUNCTION record_outage(jsonb) TO function_alerts;
