SET LOCAL ROLE trading_procedures;

-- Changes limits, by a risk officer who says why: of an account, or of a tier for all its accounts that have none of
-- their own. The only way to those columns. Holds for the next order; row, history, audit and stored answer in one
-- transaction.

-- Of an account. request {version: 1, user_id, account_id, limits: {name: a value, null for the tier's, 'unlimited' for
--   none}, reason, idempotency_key, actor, actor_id, request_hash?, request_id?, ip_address?, user_agent?, email?,
--   idempotency_key_days? (30)}; names and values as of limit_kinds
-- -> {outcome: 'changed', user_id, account_id, before, after, sequence, transact_time, replayed}; before and after hold
-- what is changed by it, as of own_limits.
-- Raises TR001 no such account, TR003 key reused, TR006 an unknown limit or value, or nothing to change, TR011 the
-- actor's own account.
CREATE OR REPLACE FUNCTION change_risk_settings(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_opened record;
    v_account accounts;
    v_before risk_settings;
    v_after risk_settings;
    v_changed jsonb [];
    v_change_id uuid := uuidv7();
    v_at timestamptz;
    v_answer jsonb;
BEGIN
    SELECT * INTO v_opened FROM open_operator_request(request, 'risk');
    IF v_opened.answer IS NOT NULL THEN
        RETURN v_opened.answer || '{"replayed": true}';
    END IF;
    v_account := v_opened.account;
    PERFORM check_reason(request, true);
    PERFORM check_limits(request -> 'limits', true);
    SELECT * INTO STRICT v_before FROM risk_settings AS r
    WHERE r.user_id = v_account.user_id AND r.account_id = v_account.id
    FOR NO KEY UPDATE;
    v_at := clock_timestamp();
    v_after := write_own_limits(settings_with(v_before, request -> 'limits'), v_at);
    PERFORM check_stop_distances(l.stop_loss_min_percent, l.stop_loss_max_percent)
    FROM effective_limits AS l
    WHERE l.user_id = v_account.user_id AND l.account_id = v_account.id;
    v_changed := changed_limits(own_limits(v_before), own_limits(v_after));
    INSERT INTO risk_changes (id, user_id, account_id, actor, reason, before, after, changed_at)
    VALUES (
        v_change_id, v_account.user_id, v_account.id, request ->> 'actor', request ->> 'reason', v_changed[1],
        v_changed[2], v_at
    );
    PERFORM tell_operator_act(
        request, v_account, 'RISK_SETTINGS_CHANGED', jsonb_build_object(
            'change_id', v_change_id, 'limits_before', v_changed[1], 'limits_after', v_changed[2]
        ), jsonb_build_object('limits', v_changed[2]), v_at
    );
    v_answer := jsonb_build_object(
        'outcome', 'changed', 'user_id', v_account.user_id, 'account_id', v_account.id, 'before', v_changed[1],
        'after', v_changed[2], 'sequence', v_account.last_sequence + 1, 'transact_time', utc_text(v_at)
    );
    PERFORM keep_operator_answer(request, v_account, v_opened.request_hash, v_answer, v_at);
    RETURN v_answer || '{"replayed": false}';
END
$$;

-- Of a tier. request {version: 1, tier, limits: {name: a value, null for none}, reason, idempotency_key, request_hash,
--   actor, ...}
-- -> {outcome: 'changed', tier, before, after, transact_time, replayed}. It concerns many accounts, so no account's
-- events tell it; the platform's audit does. A key is the tier's for ever.
-- Raises TR001 no such tier, TR003, TR006.
CREATE OR REPLACE FUNCTION change_risk_defaults(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_before risk_defaults;
    v_after risk_defaults;
    v_kept risk_changes;
    v_changed jsonb [];
    v_change_id uuid := uuidv7();
    v_at timestamptz;
    v_answer jsonb;
BEGIN
    PERFORM check_request_version(request);
    IF request ->> 'idempotency_key' IS NULL THEN
        PERFORM refuse_value('idempotency_key', NULL, 'a key of 1 to 255 characters');
    END IF;
    SELECT * INTO v_before FROM risk_defaults AS d WHERE d.tier = request ->> 'tier' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no such tier. Name bronze, silver, gold or platinum.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'tier', 'value', left(request ->> 'tier', 100), 'constraint', 'a tier'
        )::text;
    END IF;
    SELECT * INTO v_kept FROM risk_changes AS c
    WHERE c.tier = v_before.tier AND c.idempotency_key = request ->> 'idempotency_key';
    IF v_kept.request_hash <> request ->> 'request_hash' THEN
        RAISE EXCEPTION 'This idempotency key was used for another request. Send a new key with new content.'
        USING ERRCODE = 'TR003', DETAIL = jsonb_build_object(
            'field', 'idempotency_key', 'value', request ->> 'idempotency_key', 'constraint', 'one key, one request'
        )::text;
    ELSIF v_kept.id IS NOT NULL THEN
        RETURN v_kept.answer || '{"replayed": true}';
    END IF;
    PERFORM check_reason(request, true);
    PERFORM check_limits(request -> 'limits', false);
    v_at := clock_timestamp();
    v_after := write_limits_of_tier(
        jsonb_populate_record(v_before, typed_limits(request -> 'limits')), v_at
    );
    v_changed := changed_limits(limits_of_tier(v_before), limits_of_tier(v_after));
    v_answer := jsonb_build_object(
        'outcome', 'changed', 'tier', v_after.tier, 'before', v_changed[1], 'after', v_changed[2],
        'transact_time', utc_text(v_at)
    );
    INSERT INTO risk_changes (
        id, tier, actor, reason, before, after, idempotency_key, request_hash, answer, changed_at
    ) VALUES (
        v_change_id, v_after.tier, request ->> 'actor', request ->> 'reason', v_changed[1], v_changed[2],
        request ->> 'idempotency_key', request ->> 'request_hash', v_answer, v_at
    );
    PERFORM append_platform_audit(request ->> 'actor', 'RISK_DEFAULTS_CHANGED', jsonb_build_object(
        'change_id', v_change_id, 'tier', v_after.tier, 'limits_before', v_changed[1], 'limits_after', v_changed[2]
    ), request ->> 'reason');
    RETURN v_answer || '{"replayed": false}';
END
$$;

-- The settings with what p_limits sets, not written yet.
CREATE OR REPLACE FUNCTION settings_with(p_settings risk_settings, p_limits jsonb) RETURNS risk_settings
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_lifted text [] := ARRAY(SELECT l.key FROM jsonb_each(p_limits) AS l WHERE l.value = '"unlimited"');
BEGIN
    p_settings := jsonb_populate_record(p_settings, typed_limits(p_limits));
    p_settings.unlimited := ARRAY(
        SELECT u.name FROM unnest(p_settings.unlimited) AS u (name) WHERE NOT p_limits ? u.name
        UNION
        SELECT l.name FROM unnest(v_lifted) AS l (name)
        ORDER BY 1
    );
    RETURN p_settings;
END
$$;

-- What p_limits sets, in the form of its columns: a lifted limit has no value of its own, a number none of the places
-- that it does not need, and a list each symbol once, where it came first.
CREATE OR REPLACE FUNCTION typed_limits(p_limits jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_object_agg(l.key, CASE
        WHEN l.value = '"unlimited"' THEN 'null'
        WHEN k.kind IN ('number', 'count') AND l.value <> 'null' THEN to_jsonb(trim_scale((l.value #>> '{}')::numeric))
        WHEN k.kind = 'symbols' AND l.value <> 'null' THEN (
            SELECT coalesce(jsonb_agg(s.symbol ORDER BY s.place), '[]') FROM (
                SELECT e.symbol, min(e.place) AS place
                FROM jsonb_array_elements_text(l.value) WITH ORDINALITY AS e (symbol, place)
                GROUP BY e.symbol
            ) AS s
        )
        ELSE l.value
    END)
    FROM jsonb_each(p_limits) AS l
    INNER JOIN limit_kinds() AS k ON l.key = k.name
$$;

-- {what was, what is} of the limits that differ; TR006 where none does.
CREATE OR REPLACE FUNCTION changed_limits(p_before jsonb, p_after jsonb) RETURNS jsonb[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_changed jsonb [];
BEGIN
    SELECT ARRAY[jsonb_object_agg(a.key, p_before -> a.key), jsonb_object_agg(a.key, a.value)] INTO v_changed
    FROM jsonb_each(p_after) AS a
    WHERE a.value <> p_before -> a.key;
    IF v_changed[1] IS NULL THEN
        PERFORM refuse_value('limits', NULL, 'something that differs from what is set');
    END IF;
    RETURN v_changed;
END
$$;

CREATE OR REPLACE FUNCTION check_stop_distances(p_least numeric, p_greatest numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_least > p_greatest THEN
        PERFORM refuse_value('stop_loss_min_percent', p_least::text, 'at most stop_loss_max_percent, ' || p_greatest);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION write_own_limits(p_new risk_settings, p_at timestamptz) RETURNS risk_settings
LANGUAGE sql AS $$
    UPDATE risk_settings AS r SET
        max_order_quantity = p_new.max_order_quantity,
        max_order_notional = p_new.max_order_notional,
        max_position_size = p_new.max_position_size,
        max_positions = p_new.max_positions,
        max_working_orders = p_new.max_working_orders,
        max_exposure = p_new.max_exposure,
        max_concentration_percent = p_new.max_concentration_percent,
        concentration_from_exposure = p_new.concentration_from_exposure,
        order_rate_limit = p_new.order_rate_limit,
        order_rate_window_s = p_new.order_rate_window_s,
        duplicate_window_ms = p_new.duplicate_window_ms,
        daily_trade_limit = p_new.daily_trade_limit,
        max_daily_loss = p_new.max_daily_loss,
        max_drawdown_percent = p_new.max_drawdown_percent,
        max_losses_in_a_row = p_new.max_losses_in_a_row,
        stop_loss_required = p_new.stop_loss_required,
        stop_loss_min_percent = p_new.stop_loss_min_percent,
        stop_loss_max_percent = p_new.stop_loss_max_percent,
        price_collar_percent = p_new.price_collar_percent,
        restricted_symbols = p_new.restricted_symbols,
        leverage_profile = p_new.leverage_profile,
        day_time_zone = p_new.day_time_zone,
        day_start_hour = p_new.day_start_hour,
        unlimited = p_new.unlimited,
        updated_at = p_at
    WHERE r.user_id = p_new.user_id AND r.account_id = p_new.account_id
    RETURNING r.*
$$;

CREATE OR REPLACE FUNCTION write_limits_of_tier(p_new risk_defaults, p_at timestamptz) RETURNS risk_defaults
LANGUAGE plpgsql AS $$
DECLARE
    v_written risk_defaults;
BEGIN
    PERFORM check_stop_distances(p_new.stop_loss_min_percent, p_new.stop_loss_max_percent);
    UPDATE risk_defaults AS d SET
        max_order_quantity = p_new.max_order_quantity,
        max_order_notional = p_new.max_order_notional,
        max_position_size = p_new.max_position_size,
        max_positions = p_new.max_positions,
        max_working_orders = p_new.max_working_orders,
        max_exposure = p_new.max_exposure,
        max_concentration_percent = p_new.max_concentration_percent,
        concentration_from_exposure = p_new.concentration_from_exposure,
        order_rate_limit = p_new.order_rate_limit,
        order_rate_window_s = p_new.order_rate_window_s,
        duplicate_window_ms = p_new.duplicate_window_ms,
        daily_trade_limit = p_new.daily_trade_limit,
        max_daily_loss = p_new.max_daily_loss,
        max_drawdown_percent = p_new.max_drawdown_percent,
        max_losses_in_a_row = p_new.max_losses_in_a_row,
        stop_loss_required = p_new.stop_loss_required,
        stop_loss_min_percent = p_new.stop_loss_min_percent,
        stop_loss_max_percent = p_new.stop_loss_max_percent,
        price_collar_percent = p_new.price_collar_percent,
        restricted_symbols = p_new.restricted_symbols,
        leverage_profile = p_new.leverage_profile,
        day_time_zone = p_new.day_time_zone,
        day_start_hour = p_new.day_start_hour,
        updated_at = p_at
    WHERE d.tier = p_new.tier
    RETURNING d.* INTO STRICT v_written;
    RETURN v_written;
END
$$;

GRANT EXECUTE ON FUNCTION change_risk_settings(jsonb) TO function_risk_officer;
GRANT EXECUTE ON FUNCTION change_risk_defaults(jsonb) TO function_risk_officer;
