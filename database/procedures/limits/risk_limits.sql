SET LOCAL ROLE trading_procedures;

-- What limits there are, what each may be set to, and those of an account or a tier as they are told.

-- kind: number and count from `lowest` to `highest`, flag, symbols, profile, zone. One that is liftable may be
-- 'unlimited' on an account.
CREATE OR REPLACE FUNCTION limit_kinds()
RETURNS TABLE (name text, kind text, lowest numeric, highest numeric, liftable boolean)
LANGUAGE sql IMMUTABLE AS $$
    VALUES
    ('max_order_quantity', 'number', 0.000001, 1e15, true),
    ('max_order_notional', 'number', 0.01, 1e15, true),
    ('max_position_size', 'number', 0.000001, 1e15, true),
    ('max_positions', 'count', 0, 1000000, true),
    ('max_working_orders', 'count', 0, 1000000, true),
    ('max_exposure', 'number', 0, 1e15, true),
    ('max_concentration_percent', 'number', 0, 100, true),
    ('concentration_from_exposure', 'number', 0, 1e15, false),
    ('order_rate_limit', 'count', 0, 1000000, true),
    ('order_rate_window_s', 'count', 1, 86400, false),
    ('duplicate_window_ms', 'count', 1, 3600000, true),
    ('daily_trade_limit', 'count', 0, 1000000, true),
    ('max_daily_loss', 'number', 0, 1e15, true),
    ('max_drawdown_percent', 'number', 0, 100, true),
    ('max_losses_in_a_row', 'count', 1, 1000, true),
    ('stop_loss_required', 'flag', NULL, NULL, false),
    ('stop_loss_min_percent', 'number', 0, 100, true),
    ('stop_loss_max_percent', 'number', 0, 100, true),
    ('price_collar_percent', 'number', 0, 1000, true),
    ('restricted_symbols', 'symbols', NULL, NULL, false),
    ('leverage_profile', 'profile', NULL, NULL, true),
    ('day_time_zone', 'zone', NULL, NULL, false),
    ('day_start_hour', 'count', 0, 23, false)
$$;

-- An account's own limits: {name: value, null where its tier's holds, or 'unlimited'}.
CREATE OR REPLACE FUNCTION own_limits(p_settings risk_settings) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_object_agg(k.name, CASE
        WHEN k.name = ANY (p_settings.unlimited) THEN '"unlimited"' ELSE to_jsonb(p_settings) -> k.name
    END)
    FROM limit_kinds() AS k
$$;

-- A tier's limits: {name: value, null where nothing binds}.
CREATE OR REPLACE FUNCTION limits_of_tier(p_defaults risk_defaults) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_object_agg(k.name, to_jsonb(p_defaults) -> k.name) FROM limit_kinds() AS k
$$;

-- Checks what a change sets; TR006 for what cannot be.
CREATE OR REPLACE FUNCTION check_limits(p_limits jsonb, p_of_account boolean) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_limit record;
BEGIN
    IF jsonb_typeof(p_limits) IS DISTINCT FROM 'object' OR p_limits = '{}' THEN
        PERFORM refuse_value('limits', NULL, 'at least one limit');
    END IF;
    FOR v_limit IN
        SELECT l.key, l.value, l.value #>> '{}' AS text, k.*
        FROM jsonb_each(p_limits) AS l
        LEFT JOIN limit_kinds() AS k ON l.key = k.name
    LOOP
        IF v_limit.name IS NULL THEN
            PERFORM refuse_value('limits', left(v_limit.key, 100), (
                SELECT 'one of ' || string_agg(k.name, ', ') FROM limit_kinds() AS k
            ));
        END IF;
        IF v_limit.value = 'null' AND (p_of_account OR v_limit.kind <> 'zone' AND v_limit.name <> 'day_start_hour')
            OR v_limit.value = '"unlimited"' AND p_of_account AND v_limit.liftable THEN
            CONTINUE;
        END IF;
        PERFORM check_limit(v_limit.name, v_limit.value, v_limit.kind, v_limit.lowest, v_limit.highest);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION check_limit(
    p_name text, p_value jsonb, p_kind text, p_least numeric, p_greatest numeric
) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_text text := p_value #>> '{}';
    -- As people write one: not 0x10, which numeric takes for 16.
    v_number numeric := CASE WHEN p_kind IN ('number', 'count') AND jsonb_typeof(p_value) IN ('number', 'string')
        AND v_text ~ '^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]{1,3})?$' AND pg_input_is_valid(v_text, 'numeric')
        THEN v_text::numeric END;
    v_unknown text;
BEGIN
    IF p_kind IN ('number', 'count') THEN
        IF v_number IS NULL OR NOT v_number BETWEEN p_least AND p_greatest
            OR v_number <> round(v_number, CASE p_kind WHEN 'count' THEN 0 ELSE 6 END) THEN
            PERFORM refuse_value(p_name, left(v_text, 100), format(
                'a number from %s to %s %s', trim_scale(p_least), trim_scale(p_greatest),
                CASE p_kind WHEN 'count' THEN 'without places' ELSE 'with at most 6 places' END
            ));
        END IF;
    ELSIF p_kind = 'flag' AND jsonb_typeof(p_value) <> 'boolean' THEN
        PERFORM refuse_value(p_name, left(v_text, 100), 'true or false');
    ELSIF p_kind = 'profile' AND NOT EXISTS (SELECT FROM leverage_caps AS c WHERE c.profile = v_text) THEN
        PERFORM refuse_value(p_name, left(v_text, 100), 'one of ' || (
            SELECT string_agg(DISTINCT c.profile, ', ') FROM leverage_caps AS c
        ));
    ELSIF p_kind = 'zone' AND NOT EXISTS (SELECT FROM pg_timezone_names AS z WHERE z.name = v_text) THEN
        PERFORM refuse_value(p_name, left(v_text, 100), 'the name of a time zone, as America/New_York');
    ELSIF p_kind = 'symbols' THEN
        IF jsonb_typeof(p_value) <> 'array' OR jsonb_array_length(p_value) > 200 THEN
            PERFORM refuse_value(p_name, left(v_text, 100), 'a list of at most 200 symbols');
        END IF;
        SELECT s.symbol INTO v_unknown FROM jsonb_array_elements_text(p_value) AS s (symbol)
        WHERE NOT EXISTS (SELECT FROM instruments AS i WHERE i.symbol = s.symbol)
        LIMIT 1;
        IF FOUND THEN
            PERFORM refuse_value(p_name, left(v_unknown, 100), 'symbols that there are');
        END IF;
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION limit_kinds() TO trading_readers;
GRANT EXECUTE ON FUNCTION own_limits(risk_settings) TO trading_readers;
GRANT EXECUTE ON FUNCTION limits_of_tier(risk_defaults) TO trading_readers;
