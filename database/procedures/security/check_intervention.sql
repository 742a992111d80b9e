SET LOCAL ROLE trading_procedures;

-- What an intervention may be asked for: its kind, its time, its target, and what is in force already.

-- The target of a request whose parts are right, as it is kept.
CREATE OR REPLACE FUNCTION check_intervention(request jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_kind text := request ->> 'kind';
    v_target text := request ->> 'target';
    v_seconds_max integer := intervention_seconds_max(v_kind);
    v_seconds numeric := CASE WHEN jsonb_typeof(request -> 'seconds') = 'number' THEN request -> 'seconds' END;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_reason(request, true);
    IF v_seconds_max IS NULL THEN
        PERFORM refuse_value('kind', left(v_kind, 100), 'one of maintenance, ip_block, account_suspension, '
            'reserved_concurrency, price_provider');
    END IF;
    IF v_seconds IS NULL OR v_seconds <> trunc(v_seconds) OR NOT v_seconds BETWEEN 1 AND v_seconds_max THEN
        PERFORM refuse_value('seconds', left(request ->> 'seconds', 100), format('1 to %s whole seconds', v_seconds_max));
    END IF;
    PERFORM check_intervention_parameters(v_kind, coalesce(request -> 'parameters', '{}'));
    CASE v_kind
        WHEN 'maintenance' THEN
            v_target := 'platform';
        WHEN 'ip_block' THEN
            v_target := check_blocked_address(request);
        WHEN 'account_suspension' THEN
            IF NOT coalesce(pg_input_is_valid(v_target, 'uuid'), false) THEN
                PERFORM refuse_value('target', left(v_target, 100), 'the id of an account');
            END IF;
            IF get_account_owner(v_target::uuid) IS NULL THEN
                RAISE EXCEPTION 'There is no account with this id.' USING ERRCODE = 'TR001',
                DETAIL = jsonb_build_object('field', 'target', 'value', v_target, 'constraint', 'an account')::text;
            END IF;
        ELSE
            IF NOT coalesce(v_target ~ '^[a-z][a-z0-9_-]{0,63}$', false) THEN
                PERFORM refuse_value('target', left(v_target, 100), 'a name of small letters, digits, - and _');
            END IF;
    END CASE;
    RETURN v_target;
END
$$;

-- Each kind has its own and no others: what is kept for ever, and shown, is what is carried out.
CREATE OR REPLACE FUNCTION check_intervention_parameters(p_kind text, p_parameters jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    c_own CONSTANT text := CASE p_kind
        WHEN 'maintenance' THEN 'level'
        WHEN 'reserved_concurrency' THEN 'concurrency'
        WHEN 'price_provider' THEN 'provider'
    END;
BEGIN
    IF p_parameters - coalesce(c_own, '') <> '{}' THEN
        PERFORM refuse_value('parameters', NULL, coalesce('an object of nothing but ' || c_own, 'left out'));
    END IF;
    IF p_kind = 'maintenance' AND coalesce(p_parameters ->> 'level', 'reducing') NOT IN ('reducing', 'full') THEN
        PERFORM refuse_value('parameters', left(p_parameters ->> 'level', 100), 'level: reducing or full');
    END IF;
END
$$;

-- What a kind may last at most, in seconds; NULL for no kind of ours.
CREATE OR REPLACE FUNCTION intervention_seconds_max(p_kind text) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_kind
        WHEN 'maintenance' THEN 14400
        WHEN 'reserved_concurrency' THEN 86400
        WHEN 'price_provider' THEN 86400
        WHEN 'ip_block' THEN 2592000
        WHEN 'account_suspension' THEN 2592000
    END
$$;

-- Whoever asks for other parameters than those in force is not told that they have them. A rule takes what a person has
-- begun.
CREATE OR REPLACE FUNCTION check_alike(request jsonb, p_known interventions) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    c_unless_given CONSTANT jsonb := CASE p_known.kind WHEN 'maintenance' THEN '{"level": "reducing"}' ELSE '{}' END;
BEGIN
    IF request ->> 'rule' IS NULL AND c_unless_given || coalesce(request -> 'parameters', '{}')
        <> c_unless_given || p_known.parameters THEN
        RAISE EXCEPTION 'Another one is in force with %. End it first: DELETE /api/v1/risk/interventions/%.',
            left(p_known.parameters::text, 100), p_known.id
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'parameters', 'value', NULL, 'constraint', 'what is in force, or none in force'
        )::text;
    END IF;
END
$$;
