SET LOCAL ROLE trading_procedures;

-- Steps against a danger that are taken for a while, listed, and taken back by one call: by a person, or by the sweep
-- when their time is over. start_intervention, undo_intervention, list_interventions and note_intervention.
-- Each is one transaction. It locks the account where there is one, then the row of edge_guard, under which
-- interventions start and end one after the other, then the head of the platform's audit, last.

-- Starts one. request {version: 1, kind, target?, parameters? {}, reason, seconds, actor, actor_id?, rule?,
--   finding_id?, idempotency_key?, request_hash?, request_id?, ip_address?, user_agent?, email?}
-- target: of ip_block the address, of account_suspension the account's id, of reserved_concurrency the function's name
-- (parameters {concurrency}), of price_provider the feed's (parameters {provider}); these two are recorded here and
-- carried out by whoever lists them. maintenance has no target, and parameters {level?: 'reducing', in which orders are
-- canceled and positions closed and protected, or 'full', in which nothing changes}. seconds: 1 to
-- intervention_seconds_max.
-- -> {outcome: 'started' or 'already_active', replayed, intervention: see intervention_view}; already_active is the one
-- that is in force for the same kind and target, unchanged.
-- Raises TR001 no such account, TR003 key reused, TR006 a value, TR010 an account that is not active, or another one in
-- force that does something else, TR011 the actor's own account or address.
CREATE OR REPLACE FUNCTION start_intervention(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_target text := check_intervention(request);
    v_kind text := request ->> 'kind';
    v_account accounts;
    v_known interventions;
    v_over interventions;
    v_started interventions;
BEGIN
    IF v_kind = 'account_suspension' THEN
        v_account := lock_account(get_account_owner(v_target::uuid), v_target::uuid);
    END IF;
    PERFORM lock_interventions();
    v_known := replayed_intervention(request);
    IF v_known.id IS NOT NULL THEN
        RETURN intervention_answer('started', as_started(v_known), true);
    END IF;
    v_over := end_expired_intervention(request, v_kind, v_target);
    v_known := intervention_in_force(v_kind, v_target);
    IF v_known.id IS NOT NULL THEN
        PERFORM check_alike(request, v_known);
        PERFORM note_finding(request, v_known.id);
        RETURN intervention_answer('already_active', v_known, false);
    END IF;
    v_started := insert_intervention(request, v_account, v_target);
    PERFORM note_finding(request, v_started.id);
    IF v_over.id IS NOT NULL THEN
        PERFORM tell_intervention('INTERVENTION_ENDED', v_over, v_over.undone_by, v_over.undo_reason);
    END IF;
    PERFORM tell_intervention('INTERVENTION_STARTED', v_started, v_started.actor, v_started.reason);
    RETURN intervention_answer('started', v_started, false);
END
$$;

-- Takes one back. request {version: 1, id, actor, actor_id?, reason?, request_id?, ip_address?, user_agent?, email?}
-- -> {outcome: 'undone' or 'already_over', replayed: false, intervention}. An account gets back the status that it had,
-- unless somebody has changed it since, be it to what it is: then outcome.left says what it was left at. Raises TR001,
-- TR011 the actor's own account.
CREATE OR REPLACE FUNCTION undo_intervention(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_found interventions := find_intervention(request);
    v_outcome jsonb := '{}';
BEGIN
    PERFORM check_reason(request, false);
    IF v_found.kind = 'account_suspension' THEN
        PERFORM lock_account(v_found.user_id, v_found.target::uuid);
    END IF;
    PERFORM lock_interventions();
    SELECT * INTO v_found FROM interventions WHERE id = v_found.id;
    IF v_found.undone_at IS NOT NULL THEN
        RETURN intervention_answer('already_over', v_found, false);
    END IF;
    IF v_found.kind = 'account_suspension' THEN
        v_outcome := restore_account(request, v_found);
    END IF;
    v_found := close_intervention(v_found, request ->> 'actor', request ->> 'reason', v_outcome);
    PERFORM tell_intervention('INTERVENTION_ENDED', v_found, v_found.undone_by, v_found.undo_reason);
    RETURN intervention_answer('undone', v_found, false);
END
$$;

-- request {version: 1, filter?: 'active', 'over', 'expired' (past their time, not taken back), 'to_carry_out' or
--   'to_revert' (of the kinds that others carry out), kind?, before?: id, limit?: 1 to 100 (50)}
-- -> {interventions: [intervention_view, ...]}, the newest first.
CREATE OR REPLACE FUNCTION list_interventions(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at timestamptz := clock_timestamp();
    v_filter text := request ->> 'filter';
BEGIN
    PERFORM check_request_version(request);
    RETURN jsonb_build_object('interventions', (
        SELECT coalesce(jsonb_agg(intervention_view(l, v_at) ORDER BY l.id DESC), '[]') FROM (
            SELECT i.* FROM interventions AS i
            WHERE (request ->> 'kind' IS NULL OR i.kind = request ->> 'kind')
                AND (request ->> 'before' IS NULL OR i.id < (request ->> 'before')::uuid)
                AND CASE v_filter
                    WHEN 'active' THEN i.undone_at IS NULL AND i.expires_at > v_at
                    WHEN 'over' THEN i.undone_at IS NOT NULL OR i.expires_at <= v_at
                    WHEN 'expired' THEN i.undone_at IS NULL AND i.expires_at <= v_at
                    WHEN 'to_carry_out' THEN i.carried_out_at IS NULL AND i.undone_at IS NULL AND i.expires_at > v_at
                        AND i.kind IN ('reserved_concurrency', 'price_provider')
                    WHEN 'to_revert' THEN i.carried_out_at IS NOT NULL AND i.reverted_at IS NULL
                        AND (i.undone_at IS NOT NULL OR i.expires_at <= v_at)
                        AND i.kind IN ('reserved_concurrency', 'price_provider')
                    ELSE true
                END
            ORDER BY i.id DESC
            LIMIT least(greatest(coalesce((request ->> 'limit')::integer, 50), 1), 100)
        ) AS l
    ));
END
$$;

-- What came of one that others carry out. request {version: 1, id, outcome {...}, carried_out?: true, reverted?: true}
-- -> {intervention}; outcome is merged into what was noted before. Raises TR001.
CREATE OR REPLACE FUNCTION note_intervention(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_found interventions := find_intervention(request);
    v_at timestamptz;
BEGIN
    PERFORM lock_interventions();
    v_at := clock_timestamp();
    UPDATE interventions AS i SET
        outcome = i.outcome || coalesce(request -> 'outcome', '{}'),
        carried_out_at = CASE WHEN request -> 'carried_out' = 'true' THEN coalesce(i.carried_out_at, v_at)
            ELSE i.carried_out_at END,
        reverted_at = CASE WHEN request -> 'reverted' = 'true' THEN coalesce(i.reverted_at, v_at)
            ELSE i.reverted_at END
    WHERE i.id = v_found.id
    RETURNING i.* INTO v_found;
    RETURN jsonb_build_object('intervention', intervention_view(v_found, v_at));
END
$$;

-- Interventions start and end one after the other; what they write is read after this.
CREATE OR REPLACE FUNCTION lock_interventions() RETURNS void
LANGUAGE sql AS $$
    SELECT FROM edge_guard FOR NO KEY UPDATE
$$;

CREATE OR REPLACE FUNCTION find_intervention(request jsonb) RETURNS interventions
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_found interventions;
BEGIN
    PERFORM check_request_version(request);
    SELECT * INTO v_found FROM interventions WHERE id = (request ->> 'id')::uuid;
    IF v_found.id IS NULL THEN
        RAISE EXCEPTION 'There is no intervention with this id. GET /api/v1/risk/interventions lists them.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'id', 'value', request ->> 'id', 'constraint', 'an intervention'
        )::text;
    END IF;
    RETURN v_found;
END
$$;

-- The one that the actor's key has started already; a key that came with other content is refused.
CREATE OR REPLACE FUNCTION replayed_intervention(request jsonb) RETURNS interventions
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_known interventions;
BEGIN
    SELECT * INTO v_known FROM interventions
    WHERE actor = request ->> 'actor' AND start_key = request ->> 'idempotency_key';
    IF v_known.start_hash <> request ->> 'request_hash' THEN
        RAISE EXCEPTION 'This idempotency key was used for another request. Send a new key with new content.'
        USING ERRCODE = 'TR003', DETAIL = jsonb_build_object(
            'field', 'idempotency_key', 'value', request ->> 'idempotency_key', 'constraint', 'one key, one request'
        )::text;
    END IF;
    RETURN v_known;
END
$$;

-- The row as it was when it was started, for the first answer again.
CREATE OR REPLACE FUNCTION as_started(p_known interventions) RETURNS interventions
LANGUAGE plpgsql STABLE AS $$
BEGIN
    p_known.undone_at := NULL;
    p_known.undone_by := NULL;
    p_known.undo_reason := NULL;
    p_known.carried_out_at := NULL;
    p_known.reverted_at := NULL;
    p_known.outcome := jsonb_strip_nulls(jsonb_build_object('before', p_known.outcome -> 'before'));
    RETURN p_known;
END
$$;

CREATE OR REPLACE FUNCTION intervention_in_force(p_kind text, p_target text) RETURNS interventions
LANGUAGE sql STABLE AS $$
    SELECT i.* FROM interventions AS i
    LEFT JOIN security_pii AS p ON i.id = p.row_id
    WHERE i.kind = p_kind AND i.undone_at IS NULL AND coalesce(i.target, host(p.ip_address)) = p_target
$$;

-- One of the same target that is over by its time and not yet swept makes room: it is ended as the sweep would, which
-- the caller tells; all NULL where there is none.
CREATE OR REPLACE FUNCTION end_expired_intervention(
    request jsonb, p_kind text, p_target text
) RETURNS interventions
LANGUAGE plpgsql AS $$
DECLARE
    c_reason CONSTANT text := 'its time is over';
    v_over interventions := intervention_in_force(p_kind, p_target);
    v_outcome jsonb := '{}';
BEGIN
    IF v_over.expires_at > clock_timestamp() THEN
        RETURN NULL;
    ELSIF p_kind = 'account_suspension' AND v_over.id IS NOT NULL THEN
        v_outcome := restore_account(request || jsonb_build_object('reason', c_reason), v_over);
    END IF;
    RETURN close_intervention(v_over, 'expiry', c_reason, v_outcome);
END
$$;

CREATE OR REPLACE FUNCTION insert_intervention(request jsonb, p_account accounts, p_target text) RETURNS interventions
LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid := uuidv7();
    v_kind text := request ->> 'kind';
    v_at timestamptz := clock_timestamp();
    v_made interventions;
BEGIN
    INSERT INTO interventions (
        id, kind, target, user_id, parameters, reason, actor, rule, started_at, expires_at, outcome, start_key,
        start_hash
    ) VALUES (
        v_id, v_kind, CASE WHEN v_kind <> 'ip_block' THEN p_target END, p_account.user_id,
        coalesce(request -> 'parameters', '{}'), request ->> 'reason', request ->> 'actor', request ->> 'rule', v_at,
        v_at + (request ->> 'seconds')::integer * interval '1 second',
        CASE WHEN v_kind = 'account_suspension' THEN suspend_account(request, p_account, v_id) ELSE '{}' END,
        request ->> 'idempotency_key', request ->> 'request_hash'
    ) RETURNING * INTO v_made;
    IF v_kind = 'ip_block' THEN
        INSERT INTO security_pii (row_id, ip_address) VALUES (v_id, p_target::inet);
    END IF;
    RETURN v_made;
END
$$;

CREATE OR REPLACE FUNCTION close_intervention(
    p_open interventions, p_by text, p_reason text, p_outcome jsonb
) RETURNS interventions
LANGUAGE sql AS $$
    UPDATE interventions AS i SET
        undone_at = clock_timestamp(), undone_by = p_by, undo_reason = p_reason, outcome = i.outcome || p_outcome
    WHERE i.id = p_open.id
    RETURNING i.*
$$;

-- The new version of what the edge copies, and the platform's audit. An address is in it as a salted digest alone, so
-- that it can be erased. Called last, because the head of the platform's chain is everybody's last lock.
CREATE OR REPLACE FUNCTION tell_intervention(p_action text, p_told interventions, p_actor text, p_reason text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_told.kind IN ('maintenance', 'ip_block') THEN
        UPDATE edge_guard SET version = version + 1;
    END IF;
    PERFORM append_platform_audit(p_actor, p_action, jsonb_build_object(
        'intervention_id', p_told.id, 'kind', p_told.kind, 'target', p_told.target, 'parameters', p_told.parameters,
        'rule', p_told.rule, 'expires_at', utc_text(p_told.expires_at), 'outcome', p_told.outcome,
        'address_digest', (
            SELECT encode(sha256(p.salt || convert_to(host(p.ip_address), 'UTF8')), 'hex')
            FROM security_pii AS p WHERE p.row_id = p_told.id
        )
    ), p_reason);
END
$$;

CREATE OR REPLACE FUNCTION note_finding(request jsonb, p_intervention_id uuid) RETURNS void
LANGUAGE sql AS $$
    UPDATE security_findings SET intervention_id = p_intervention_id WHERE id = (request ->> 'finding_id')::uuid
$$;

CREATE OR REPLACE FUNCTION intervention_answer(p_outcome text, p_told interventions, p_replayed boolean) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'outcome', p_outcome, 'replayed', p_replayed, 'intervention', intervention_view(
            p_told, CASE WHEN p_replayed THEN p_told.started_at ELSE clock_timestamp() END
        )
    )
$$;

-- {id, kind, target, parameters, reason, actor, rule, state: active, expired or undone, started_at, expires_at,
-- undone_at, undone_by, undo_reason, carried_out_at, reverted_at, outcome}; the target of a block is the address, NULL
-- once that was erased. `expired`: its time is over.
CREATE OR REPLACE FUNCTION intervention_view(p_told interventions, p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', p_told.id, 'kind', p_told.kind,
        'target', coalesce(p_told.target, (SELECT host(p.ip_address) FROM security_pii AS p WHERE p.row_id = p_told.id)),
        'parameters', p_told.parameters, 'reason', p_told.reason, 'actor', p_told.actor, 'rule', p_told.rule,
        'state', CASE
            WHEN p_told.undone_by = 'expiry' OR (p_told.undone_at IS NULL AND p_told.expires_at <= p_at) THEN 'expired'
            WHEN p_told.undone_at IS NOT NULL THEN 'undone'
            ELSE 'active'
        END,
        'started_at', utc_text(p_told.started_at), 'expires_at', utc_text(p_told.expires_at),
        'undone_at', utc_text(p_told.undone_at), 'undone_by', p_told.undone_by, 'undo_reason', p_told.undo_reason,
        'carried_out_at', utc_text(p_told.carried_out_at), 'reverted_at', utc_text(p_told.reverted_at),
        'outcome', p_told.outcome
    )
$$;

GRANT EXECUTE ON FUNCTION start_intervention(jsonb) TO function_security, function_incidents, function_alerts;
GRANT EXECUTE ON FUNCTION undo_intervention(jsonb) TO function_security, function_incidents;
GRANT EXECUTE ON FUNCTION list_interventions(jsonb) TO function_security, function_incidents, function_alerts;
GRANT EXECUTE ON FUNCTION note_intervention(jsonb) TO function_alerts;
