SET LOCAL ROLE trading_procedures;

-- The outbox of alerts: messages are claimed, sent with no transaction open, and what became of them is reported.

-- Take a lease on up to `limit` messages that are due, those of critical alerts first, and of those the ones that were
-- tried least, so that one on which every copy dies holds up no other.
-- request {version: 1, holder, limit, lease_ms, at?}
-- answer  [{id, kind, level, addressee, channel, attempts, alert: {id, rule, title, subject, severity, figure, value,
--           threshold, samples, opened_at, ended_at, acknowledged_by, resolved_by, note, runbook, incident_id,
--           responses: [{kind, state, error}]}}]
CREATE OR REPLACE FUNCTION claim_notifications(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at timestamptz := coalesce((request ->> 'at')::timestamptz, clock_timestamp());
    v_claimed jsonb;
BEGIN
    PERFORM check_request_version(request);
    WITH free AS MATERIALIZED (
        SELECT n.id
        FROM alert_notifications AS n
        INNER JOIN alerts AS a ON n.alert_id = a.id
        WHERE n.state = 'pending' AND n.due_at <= v_at AND (n.lease_expires_at IS NULL OR n.lease_expires_at <= v_at)
        ORDER BY a.severity = 'critical' DESC, n.attempts, n.due_at, n.id
        LIMIT (request ->> 'limit')::integer
        FOR UPDATE OF n SKIP LOCKED
    ), leased AS (
        UPDATE alert_notifications AS n SET
            lease_holder = (request ->> 'holder')::uuid,
            lease_expires_at = v_at + (request ->> 'lease_ms')::integer * interval '1 millisecond',
            attempts = n.attempts + 1
        FROM free AS f
        WHERE n.id = f.id
        RETURNING n.*
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'id', l.id, 'kind', l.kind, 'level', l.level, 'addressee', l.addressee, 'channel', l.channel,
        'attempts', l.attempts, 'alert', jsonb_build_object(
            'id', a.id, 'rule', a.rule, 'title', r.title, 'subject', a.subject, 'severity', a.severity,
            'figure', r.figure, 'value', a.last_value, 'threshold', a.threshold, 'samples', a.samples,
            'opened_at', utc_text(a.opened_at), 'ended_at', utc_text(a.ended_at),
            'acknowledged_by', a.acknowledged_by, 'resolved_by', a.resolved_by, 'note', a.note, 'runbook', r.runbook,
            'incident_id', i.id, 'responses', (
                SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'kind', d.kind, 'state', d.state, 'error', d.outcome ->> 'error'
                ) ORDER BY d.kind), '[]')
                FROM alert_responses AS d WHERE d.alert_id = a.id
            )
        )
    ) ORDER BY a.severity = 'critical' DESC, l.attempts, l.due_at, l.id), '[]') INTO v_claimed
    FROM leased AS l
    INNER JOIN alerts AS a ON l.alert_id = a.id
    INNER JOIN alert_rules AS r ON a.rule = r.name
    LEFT JOIN incidents AS i ON a.id = i.alert_id;
    RETURN v_claimed;
END
$$;

-- What became of a claimed message. One that failed is tried again a minute and two minutes later, and the next channel
-- in line is told at once; one whose channel is not configured is not tried again.
-- request {version: 1, holder, id, outcome: sent, failed or unconfigured, error?, attempts_max, at?}
-- answer  {state: sent, pending, failed or gone, fallback: channel or null}; gone: the lease is another copy's
CREATE OR REPLACE FUNCTION report_notification(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at timestamptz := coalesce((request ->> 'at')::timestamptz, clock_timestamp());
    v_told alert_notifications;
    v_state text;
    v_fallback text;
BEGIN
    PERFORM check_request_version(request);
    SELECT * INTO v_told FROM alert_notifications AS n
    WHERE n.id = (request ->> 'id')::uuid AND n.state = 'pending' AND n.lease_holder = (request ->> 'holder')::uuid
    FOR NO KEY UPDATE;
    IF v_told.id IS NULL THEN
        RETURN '{"state": "gone", "fallback": null}';
    END IF;
    v_state := CASE
        WHEN request ->> 'outcome' = 'sent' THEN 'sent'
        WHEN request ->> 'outcome' = 'failed' AND v_told.attempts < (request ->> 'attempts_max')::integer THEN 'pending'
        ELSE 'failed'
    END;
    UPDATE alert_notifications SET
        state = v_state, last_error = left(request ->> 'error', 300), lease_holder = NULL, lease_expires_at = NULL,
        due_at = CASE v_state WHEN 'pending' THEN v_at + v_told.attempts * interval '1 minute' ELSE due_at END,
        ended_at = CASE WHEN v_state <> 'pending' THEN v_at END
    WHERE id = v_told.id
    RETURNING * INTO v_told;
    IF v_state <> 'sent' THEN
        v_fallback := tell_next_channel(v_told, v_at);
    END IF;
    IF v_state <> 'pending' THEN
        PERFORM append_incident_event(
            v_told.alert_id, CASE v_state WHEN 'sent' THEN 'notified' ELSE 'not_notified' END, 'platform',
            jsonb_strip_nulls(jsonb_build_object(
                'channel', v_told.channel, 'addressee', v_told.addressee, 'of', v_told.kind, 'error', v_told.last_error
            )), v_at
        );
    END IF;
    RETURN jsonb_build_object('state', v_state, 'fallback', v_fallback);
END
$$;

-- Puts the message on the first channel in line that has not failed with it too; that channel, NULL when it has it
-- already or nobody is left.
CREATE OR REPLACE FUNCTION tell_next_channel(p_failed alert_notifications, p_at timestamptz) RETURNS text
LANGUAGE sql AS $$
    WITH RECURSIVE line AS (
        SELECT c.fallback AS channel, 1 AS place FROM alert_channels AS c WHERE c.name = p_failed.channel
        UNION ALL
        SELECT c.fallback, l.place + 1
        FROM line AS l
        INNER JOIN alert_channels AS c ON l.channel = c.name
        -- Go on only past a channel that has failed with this message.
        WHERE l.place < 10 AND EXISTS (
            SELECT FROM alert_notifications AS n
            WHERE (n.alert_id, n.kind, n.round, n.level, n.channel)
                = (p_failed.alert_id, p_failed.kind, p_failed.round, p_failed.level, l.channel)
                AND n.state <> 'sent' AND n.last_error IS NOT NULL
        )
    )
    INSERT INTO alert_notifications (alert_id, kind, round, level, addressee, channel, instead_of, due_at, created_at)
    SELECT p_failed.alert_id, p_failed.kind, p_failed.round, p_failed.level, p_failed.addressee, l.channel,
        p_failed.id, p_at, p_at
    FROM line AS l
    WHERE l.channel IS NOT NULL
    ORDER BY l.place DESC
    LIMIT 1
    ON CONFLICT (alert_id, kind, round, level, channel) DO NOTHING
    RETURNING channel
$$;

-- Automatic responses that are due. request {version: 1, limit}
-- answer [{alert_id, kind, rule, subject, title, incident_id, attempts}]
CREATE OR REPLACE FUNCTION claim_responses(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'alert_id', r.alert_id, 'kind', r.kind, 'rule', r.rule, 'subject', r.subject, 'title', r.title,
            'incident_id', r.incident_id, 'attempts', r.attempts
        ) ORDER BY r.created_at, r.alert_id, r.kind), '[]')
        FROM (
            SELECT d.*, a.rule, a.subject, u.title, i.id AS incident_id
            FROM alert_responses AS d
            INNER JOIN alerts AS a ON d.alert_id = a.id
            INNER JOIN alert_rules AS u ON a.rule = u.name
            LEFT JOIN incidents AS i ON a.id = i.alert_id
            WHERE d.state = 'due'
            ORDER BY d.created_at
            LIMIT (request ->> 'limit')::integer
        ) AS r
    );
END
$$;

-- What became of a response; one that failed is tried again until attempts_max, and then people are told: they count
-- on it. It is begun under a key made of alert and kind, so that two copies begin it once.
-- request {version: 1, alert_id, kind, outcome: done or failed, details, attempts_max}; answer {state}
CREATE OR REPLACE FUNCTION report_response(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at timestamptz := clock_timestamp();
    v_response alert_responses;
BEGIN
    PERFORM check_request_version(request);
    UPDATE alert_responses AS r SET
        attempts = r.attempts + 1,
        outcome = request -> 'details',
        state = s.state,
        ended_at = CASE WHEN s.state <> 'due' THEN v_at END
    FROM (
        SELECT d.alert_id, d.kind, CASE
            WHEN request ->> 'outcome' = 'done' THEN 'done'
            WHEN d.attempts + 1 < (request ->> 'attempts_max')::integer THEN 'due' ELSE 'failed'
        END AS state
        FROM alert_responses AS d
        WHERE d.alert_id = (request ->> 'alert_id')::uuid AND d.kind = request ->> 'kind' AND d.state = 'due'
        FOR NO KEY UPDATE
    ) AS s
    WHERE r.alert_id = s.alert_id AND r.kind = s.kind
    RETURNING r.* INTO v_response;
    IF v_response.state IN ('done', 'failed') THEN
        PERFORM append_incident_event(
            v_response.alert_id, CASE v_response.state WHEN 'done' THEN 'response_started' ELSE 'response_failed' END,
            'platform', jsonb_build_object('kind', v_response.kind) || coalesce(v_response.outcome, '{}'), v_at
        );
    END IF;
    IF v_response.state = 'failed' THEN
        PERFORM tell_worsening(r, a.id, v_at)
        FROM alerts AS a
        INNER JOIN alert_rules AS r ON a.rule = r.name
        WHERE a.id = v_response.alert_id AND a.state = 'open';
    END IF;
    RETURN jsonb_build_object('state', coalesce(v_response.state, 'gone'));
END
$$;

GRANT EXECUTE ON FUNCTION claim_notifications(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION report_notification(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION claim_responses(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION report_response(jsonb) TO function_alerts;
