SET LOCAL ROLE trading_procedures;

-- Orders that are held until prices have come to where their conditions say, of whatever symbols. A condition that is
-- met stays met; with the last of them the order works, as if it were placed at that moment.

-- The conditions as an order's row has them: [{symbol, watch: 'bid' | 'ask', direction: 'at_or_above' | 'at_or_below',
-- level, met_at}] from what is asked for, with p_met, the times at which they were met by their places from 1. What
-- is asked for may bring times of its own, where an order takes the place of another.
CREATE OR REPLACE FUNCTION conditions_of(p_asked jsonb, p_met jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_agg(jsonb_build_object(
        'symbol', c.asked -> 'symbol', 'watch', c.asked -> 'watch', 'direction', c.asked -> 'direction',
        'level', (c.asked ->> 'level')::numeric, 'met_at', coalesce(p_met ->> c.place::text, c.asked ->> 'met_at')
    ) ORDER BY c.place)
    FROM jsonb_array_elements(p_asked) WITH ORDINALITY AS c (asked, place)
$$;

-- The same as if none were met.
CREATE OR REPLACE FUNCTION unmet_conditions(p_asked jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_agg((c.asked || jsonb_build_object('level', (c.asked ->> 'level')::numeric)) - 'met_at' ORDER BY c.place)
    FROM jsonb_array_elements(p_asked) WITH ORDINALITY AS c (asked, place)
$$;

-- Whether any of them is not met yet.
CREATE OR REPLACE FUNCTION awaits_conditions(p_conditions jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(bool_or(c.asked ->> 'met_at' IS NULL), false)
    FROM jsonb_array_elements(coalesce(p_conditions, '[]')) AS c (asked)
$$;

-- Behind the API's own check: how many, of which symbols, at which prices, and which orders can be held at all.
CREATE OR REPLACE FUNCTION check_conditions(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    c_conditions_max CONSTANT integer := 4;
    v_conditions jsonb := request -> 'conditions';
    v_asked record;
BEGIN
    IF jsonb_typeof(v_conditions) <> 'array' OR NOT jsonb_array_length(v_conditions) BETWEEN 1 AND c_conditions_max THEN
        PERFORM refuse_value('conditions', v_conditions::text, '1 to ' || c_conditions_max || ' conditions');
    END IF;
    IF NOT request ? 'replaces_order_id' THEN
        PERFORM check_new_conditions(v_conditions, request ->> 'order_type');
    END IF;
    FOR v_asked IN
        SELECT c.asked, format('conditions.%s', c.place - 1) AS field, i.tick_size
        FROM jsonb_array_elements(v_conditions) WITH ORDINALITY AS c (asked, place)
        LEFT JOIN instruments AS i ON i.symbol = c.asked ->> 'symbol'
    LOOP
        PERFORM check_condition(v_asked.field, v_asked.asked, v_asked.tick_size);
    END LOOP;
    -- Its mark would run on while it is held.
    IF is_trailing(request ->> 'order_type') THEN
        PERFORM refuse_value('conditions', v_conditions::text, 'left out of an order that trails');
    END IF;
    IF request ->> 'time_in_force' NOT IN ('day', 'gtc', 'gtd') THEN
        PERFORM refuse_value('time_in_force', request ->> 'time_in_force', 'day, gtc or gtd');
    END IF;
    -- It may be filled in the moment in which it begins to work.
    IF (request ->> 'post_only')::boolean THEN
        PERFORM refuse_value('post_only', 'true', 'left out');
    END IF;
END
$$;

-- What a caller says is met by nothing yet. An order may be left without conditions, if there is something else that it
-- waits for.
CREATE OR REPLACE FUNCTION check_new_conditions(p_conditions jsonb, p_order_type text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_path_exists(p_conditions, '$[*].met_at') THEN
        PERFORM refuse_value('conditions', p_conditions::text, 'conditions without met_at');
    END IF;
    IF p_conditions = 'null' AND p_order_type = 'market' THEN
        PERFORM refuse_value('conditions', NULL, 'one at least: a market order waits for nothing else');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION check_condition(p_field text, p_asked jsonb, p_tick numeric) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_level numeric := (p_asked ->> 'level')::numeric;
BEGIN
    IF p_tick IS NULL THEN
        RAISE EXCEPTION 'There is no instrument %.', p_asked ->> 'symbol'
        USING ERRCODE = 'TR002', DETAIL = jsonb_build_object(
            'field', p_field || '.symbol', 'value', p_asked ->> 'symbol', 'constraint', 'a known symbol'
        )::text;
    END IF;
    IF p_asked ->> 'watch' IS NULL OR p_asked ->> 'watch' NOT IN ('bid', 'ask') THEN
        PERFORM refuse_value(p_field || '.watch', p_asked ->> 'watch', 'bid or ask');
    END IF;
    IF p_asked ->> 'direction' IS NULL OR p_asked ->> 'direction' NOT IN ('at_or_above', 'at_or_below') THEN
        PERFORM refuse_value(p_field || '.direction', p_asked ->> 'direction', 'at_or_above or at_or_below');
    END IF;
    IF v_level IS NULL OR v_level <= 0 OR v_level % p_tick <> 0 THEN
        PERFORM refuse_value(p_field || '.level', p_asked ->> 'level', 'a positive multiple of ' || p_tick);
    END IF;
END
$$;

-- A new order, before it is written: held whole while it waits for conditions, so that no price touches it. One without
-- a price of its own that does not wait any more takes the quote of now, or else the next one.
CREATE OR REPLACE FUNCTION held_for_conditions(p_order orders) RETURNS orders
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF awaits_conditions(p_order.conditions) THEN
        p_order.held_quantity := p_order.quantity;
        p_order.trigger_price := NULL;
    ELSIF p_order.order_type = 'market' THEN
        p_order.active_at := p_order.created_at;
    END IF;
    RETURN p_order;
END
$$;

-- Lets quotes look for what it waits for.
CREATE OR REPLACE FUNCTION await_conditions(p_order orders) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO order_conditions (user_id, account_id, order_id, place, symbol, watch, level)
    SELECT
        p_order.user_id, p_order.account_id, p_order.id, c.place, c.asked ->> 'symbol',
        (c.asked ->> 'watch') || CASE c.asked ->> 'direction' WHEN 'at_or_above' THEN '_rises' ELSE '_falls' END,
        (c.asked ->> 'level')::numeric
    FROM jsonb_array_elements(p_order.conditions) WITH ORDINALITY AS c (asked, place)
    WHERE c.asked ->> 'met_at' IS NULL
    ORDER BY c.place
$$;

-- A new order, once it is written and told: what the quotes of now meet is met, and if that is all, it works.
CREATE OR REPLACE FUNCTION meet_conditions_now(
    request jsonb, p_account accounts, p_order orders, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
    v_met record;
BEGIN
    FOR v_met IN
        SELECT c AS condition, jsonb_build_object(
                'bid', q.bid, 'ask', q.ask, 'source', q.source, 'quoted_at', utc_text(q.quoted_at)
            ) AS quote
        FROM order_conditions AS c
        INNER JOIN quotes AS q USING (symbol)
        INNER JOIN instruments AS i USING (symbol)
        WHERE c.user_id = p_order.user_id AND c.order_id = p_order.id AND touches(c.watch, c.level, q.bid, q.ask)
            AND NOT quote_is_ahead(q.quoted_at, q.received_at, p_at)
            AND least(q.quoted_at, q.received_at) >= p_at - i.quote_age_ms_max * interval '1 ms'
            AND ((SELECT s.trade_always FROM platform_settings AS s) OR market_is_open(i.calendar, p_at))
        ORDER BY c.place
    LOOP
        v_order := meet_condition(
            request, account_under_lock(p_account), v_order, v_met.condition, v_met.quote, p_at
        );
    END LOOP;
    IF v_order.held_quantity = 0 THEN
        RETURN begin_to_work(request, account_under_lock(p_account), v_order, p_at);
    END IF;
    RETURN v_order;
END
$$;

-- What the queue holds of a condition, as execute_trigger hands it on. The order may have ended meanwhile.
CREATE OR REPLACE FUNCTION execute_met_condition(
    request jsonb, p_account accounts, p_touch trigger_queue, p_at timestamptz
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_condition order_conditions;
    v_order orders;
BEGIN
    SELECT * INTO v_condition FROM order_conditions AS c
    WHERE c.user_id = p_touch.user_id AND c.id = p_touch.subject_id;
    IF NOT FOUND THEN
        RETURN 'idle';
    END IF;
    SELECT * INTO STRICT v_order FROM orders AS o
    WHERE o.user_id = v_condition.user_id AND o.id = v_condition.order_id
    FOR NO KEY UPDATE;
    IF v_order.expires_at <= p_touch.quoted_at THEN
        RETURN (end_order(request, p_account, v_order, 'expired', NULL, 'Its time in force has ended', p_at)).status;
    END IF;
    v_order := meet_condition(request, p_account, v_order, v_condition, jsonb_build_object(
        'bid', p_touch.bid, 'ask', p_touch.ask, 'source', p_touch.source, 'quoted_at', utc_text(p_touch.quoted_at)
    ), p_at);
    IF v_order.held_quantity = 0 THEN
        v_order := begin_to_work(request, account_under_lock(p_account), v_order, p_at);
    END IF;
    RETURN v_order.status;
END
$$;

-- One condition is met by p_quote {bid, ask, source, quoted_at}; with the last one nothing holds the order any more.
-- Row, audit, event.
CREATE OR REPLACE FUNCTION meet_condition(
    request jsonb, p_account accounts, p_order orders, p_condition order_conditions, p_quote jsonb, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
BEGIN
    DELETE FROM order_conditions WHERE user_id = p_condition.user_id AND id = p_condition.id;
    v_order.conditions := conditions_of(
        p_order.conditions, jsonb_build_object(p_condition.place::text, utc_text(p_at))
    );
    IF NOT awaits_conditions(v_order.conditions) THEN
        v_order.held_quantity := 0;
        v_order.trigger_price := trigger_level(v_order);
        v_order.active_at := CASE WHEN v_order.order_type = 'market' THEN p_at END;
    END IF;
    UPDATE orders AS o SET
        conditions = v_order.conditions,
        held_quantity = v_order.held_quantity,
        trigger_price = v_order.trigger_price,
        active_at = v_order.active_at,
        version = o.version + 1,
        updated_at = p_at
    WHERE o.user_id = p_order.user_id AND o.id = p_order.id
    RETURNING o.* INTO STRICT v_order;
    PERFORM book_changed_order(request, p_account, v_order, ROW('CONDITION_MET', v_order.status, p_quote
        || jsonb_strip_nulls(jsonb_build_object(
            'place', p_condition.place, 'symbol', p_condition.symbol, 'watch', p_condition.watch,
            'level', p_condition.level, 'held_quantity', v_order.held_quantity,
            'active_at', utc_text(v_order.active_at)
        )), NULL, NULL)::audit_entry, p_at);
    RETURN v_order;
END
$$;

-- Nothing holds it any more: as if it were placed now, it is filled by the quote of now if that touches it.
CREATE OR REPLACE FUNCTION begin_to_work(
    request jsonb, p_account accounts, p_order orders, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_terms order_terms;
BEGIN
    SELECT * INTO v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = p_order.symbol;
    IF NOT FOUND THEN
        RETURN end_order(
            request, p_account, p_order, 'rejected', 'TRADING_HALTED', p_order.symbol || ' is not traded any more.', p_at
        );
    END IF;
    IF NOT coalesce(is_touched_now(p_order, v_terms, p_at), false) THEN
        RETURN p_order;
    END IF;
    IF p_order.expires_at <= v_terms.quoted_at THEN
        RETURN end_order(request, p_account, p_order, 'expired', NULL, 'Its time in force has ended', p_at);
    END IF;
    RETURN act_on_touch(request, p_account, p_order, v_terms, p_at);
END
$$;

-- What events and answers tell of an order's conditions; nothing of one without.
CREATE OR REPLACE FUNCTION conditions_fact(p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_order.conditions IS NULL THEN
        RETURN '{}';
    END IF;
    RETURN jsonb_build_object('conditions', p_order.conditions, 'held_quantity', p_order.held_quantity);
END
$$;

-- What judges an order judges its preview.
GRANT EXECUTE ON FUNCTION check_conditions(jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_new_conditions(jsonb, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_condition(text, jsonb, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION awaits_conditions(jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION unmet_conditions(jsonb) TO trading_readers;
