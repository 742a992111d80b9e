SET LOCAL ROLE trading_readers;

-- What people do about alerts: look at them, take them on, end them.

-- An alert as people see it; an open one that somebody has taken on is shown as acknowledged.
CREATE OR REPLACE FUNCTION readable_alert(p_alert alerts) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', p_alert.id, 'rule', p_alert.rule, 'title', r.title, 'subject', p_alert.subject,
        'severity', p_alert.severity,
        'state', CASE WHEN p_alert.state = 'open' AND p_alert.acknowledged_at IS NOT NULL THEN 'acknowledged'
            ELSE p_alert.state END,
        'figure', r.figure, 'comparison', r.comparison, 'threshold', p_alert.threshold::text,
        'opened_value', p_alert.opened_value::text, 'last_value', p_alert.last_value::text,
        'worst_value', p_alert.worst_value::text, 'samples', p_alert.samples, 'opened_at', utc_text(p_alert.opened_at),
        'last_breached_at', utc_text(p_alert.last_breached_at), 'escalation_level', p_alert.escalation_level,
        'acknowledged_at', utc_text(p_alert.acknowledged_at), 'acknowledged_by', p_alert.acknowledged_by,
        'ended_at', utc_text(p_alert.ended_at), 'resolved_by', p_alert.resolved_by, 'note', p_alert.note,
        'incident_id', i.id, 'runbook', r.runbook
    )
    FROM alert_rules AS r
    LEFT JOIN incidents AS i ON i.alert_id = p_alert.id
    WHERE r.name = p_alert.rule
$$;

-- Alerts, newest first. request {version: 1, state?, severity?, before?, limit}; before is an id
-- answer {alerts: [...], next: id or null}
CREATE OR REPLACE FUNCTION list_alerts(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_limit integer := (request ->> 'limit')::integer;
    v_ids uuid [];
BEGIN
    v_ids := ARRAY(
        SELECT a.id
        FROM alerts AS a
        WHERE (request ->> 'severity' IS NULL OR a.severity = request ->> 'severity')
            AND (request ->> 'before' IS NULL OR a.id < (request ->> 'before')::uuid)
            AND CASE request ->> 'state'
                WHEN 'open' THEN a.state = 'open' AND a.acknowledged_at IS NULL
                WHEN 'acknowledged' THEN a.state = 'open' AND a.acknowledged_at IS NOT NULL
                ELSE a.state = coalesce(request ->> 'state', a.state)
            END
        ORDER BY a.id DESC
        LIMIT v_limit + 1
    );
    RETURN jsonb_build_object(
        'alerts', (
            SELECT coalesce(jsonb_agg(readable_alert(a) ORDER BY a.id DESC), '[]')
            FROM alerts AS a WHERE a.id = ANY (v_ids[1:v_limit])
        ),
        'next', CASE WHEN cardinality(v_ids) > v_limit THEN v_ids[v_limit] END
    );
END
$$;

-- An incident with its alert, its timeline, who was told and what was done: NULL where there is none.
-- request {version: 1, incident_id}
CREATE OR REPLACE FUNCTION get_incident(request jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', i.id, 'title', i.title, 'opened_at', utc_text(i.opened_at), 'closed_at', utc_text(i.closed_at),
        'alert', (SELECT readable_alert(a) FROM alerts AS a WHERE a.id = i.alert_id),
        'timeline', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'place', e.place, 'kind', e.kind, 'actor', e.actor, 'details', e.details, 'at', utc_text(e.created_at)
            ) ORDER BY e.place), '[]')
            FROM incident_events AS e WHERE e.incident_id = i.id
        ),
        'responses', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'kind', r.kind, 'state', r.state, 'outcome', r.outcome
            ) ORDER BY r.kind), '[]')
            FROM alert_responses AS r WHERE r.alert_id = i.alert_id
        )
    )
    FROM incidents AS i
    WHERE i.id = (request ->> 'incident_id')::uuid
$$;

GRANT EXECUTE ON FUNCTION readable_alert(alerts) TO trading_procedures;
GRANT EXECUTE ON FUNCTION list_alerts(jsonb) TO function_incidents;
GRANT EXECUTE ON FUNCTION get_incident(jsonb) TO function_incidents;

SET LOCAL ROLE trading_procedures;

-- Takes an open alert on: from now on it escalates no further. Again by anybody it changes nothing.
-- request {version: 1, alert_id, actor, note?, idempotency_key, request_hash, idempotency_key_days}
-- answer  the alert as readable_alert tells it, with `replayed`. Raises TR001, TR003, TR006, TR010 (it has ended).
CREATE OR REPLACE FUNCTION acknowledge_alert(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_opened record;
    v_alert alerts;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_opened FROM open_alert_request(request);
    IF v_opened.answer IS NOT NULL THEN
        RETURN v_opened.answer || '{"replayed": true}';
    END IF;
    v_alert := v_opened.alert;
    v_at := greatest(clock_timestamp(), v_alert.opened_at);
    IF v_alert.acknowledged_at IS NULL THEN
        UPDATE alerts SET
            acknowledged_at = v_at, acknowledged_by = request ->> 'actor', note = coalesce(request ->> 'note', note)
        WHERE id = v_alert.id
        RETURNING * INTO v_alert;
        PERFORM append_incident_event(
            v_alert.id, 'acknowledged', request ->> 'actor',
            jsonb_strip_nulls(jsonb_build_object('note', request ->> 'note')), v_at
        );
        PERFORM append_platform_audit(
            request ->> 'actor', 'ALERT_ACKNOWLEDGED', alert_fact(v_alert), request ->> 'note'
        );
    END IF;
    RETURN keep_alert_answer(request, v_alert, v_at);
END
$$;

-- Ends an open alert by a person's word, who says why; if its figure is still breached it opens again.
-- request and answer as of acknowledge_alert, the note required
CREATE OR REPLACE FUNCTION resolve_alert(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_opened record;
    v_at timestamptz;
BEGIN
    IF request ->> 'note' IS NULL THEN
        PERFORM refuse_value('note', NULL, 'text of 1 to 1000 characters');
    END IF;
    SELECT * INTO v_opened FROM open_alert_request(request);
    IF v_opened.answer IS NOT NULL THEN
        RETURN v_opened.answer || '{"replayed": true}';
    END IF;
    v_at := greatest(clock_timestamp(), (v_opened.alert).last_breached_at);
    RETURN keep_alert_answer(
        request, end_alert(v_opened.alert, 'resolved', request ->> 'actor', request ->> 'note', v_at), v_at
    );
END
$$;

-- What an act on an alert begins with: the turn among the runs that change alerts, the key, the alert's lock.
CREATE OR REPLACE FUNCTION open_alert_request(request jsonb, OUT alert alerts, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    v_kept alert_answers;
BEGIN
    PERFORM check_request_version(request);
    IF request ->> 'idempotency_key' IS NULL THEN
        PERFORM refuse_value('idempotency_key', NULL, 'a key of 1 to 255 characters');
    END IF;
    PERFORM begin_evaluation(NULL);
    SELECT * INTO v_kept FROM alert_answers AS k
    WHERE k.actor = request ->> 'actor' AND k.idempotency_key = request ->> 'idempotency_key';
    IF v_kept.request_hash <> request ->> 'request_hash' THEN
        RAISE EXCEPTION 'This idempotency key was used for another request. Send a new key with new content.'
        USING ERRCODE = 'TR003', DETAIL = jsonb_build_object(
            'field', 'idempotency_key', 'value', request ->> 'idempotency_key', 'constraint', 'one key, one request'
        )::text;
    END IF;
    answer := v_kept.answer;
    IF answer IS NOT NULL THEN
        RETURN;
    END IF;
    SELECT * INTO alert FROM alerts AS a WHERE a.id = (request ->> 'alert_id')::uuid FOR NO KEY UPDATE;
    IF alert.id IS NULL THEN
        RAISE EXCEPTION 'There is no alert with this id. GET /api/v1/risk/alerts lists them.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'id', 'value', request ->> 'alert_id', 'constraint', 'an alert'
        )::text;
    END IF;
    IF alert.state <> 'open' THEN
        RAISE EXCEPTION 'This alert has ended: it is %.', alert.state
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'id', 'value', alert.id, 'constraint', 'an open alert'
        )::text;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION keep_alert_answer(request jsonb, p_alert alerts, p_at timestamptz) RETURNS jsonb
LANGUAGE sql AS $$
    INSERT INTO alert_answers (actor, idempotency_key, request_hash, answer, expires_at)
    VALUES (
        request ->> 'actor', request ->> 'idempotency_key', request ->> 'request_hash', readable_alert(p_alert),
        p_at + (request ->> 'idempotency_key_days')::integer * interval '1 day'
    )
    RETURNING answer || '{"replayed": false}'
$$;

GRANT EXECUTE ON FUNCTION acknowledge_alert(jsonb) TO function_incidents;
GRANT EXECUTE ON FUNCTION resolve_alert(jsonb) TO function_incidents;
