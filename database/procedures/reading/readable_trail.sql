SET LOCAL ROLE trading_readers;

-- The trail of an order as its owner reads it, all null of one that does not trail. Mark and level are those of now,
-- as long as it waits for its level; after that its stop price says at which it was triggered.
CREATE OR REPLACE FUNCTION readable_trail(p_order orders, p_tick numeric) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_level trailing_levels;
BEGIN
    IF p_order.order_type IN ('trailing_stop', 'trailing_stop_limit') AND p_order.status = 'new' THEN
        SELECT * INTO v_level FROM trailing_levels AS l
        WHERE l.user_id = p_order.user_id AND l.subject_id = p_order.id;
    END IF;
    RETURN jsonb_build_object(
        'trail_amount', price_form(p_order.trail_amount, p_tick),
        'trail_percent', number_form(p_order.trail_percent),
        'limit_offset', price_form(p_order.limit_offset, p_tick),
        'trail_mark', price_form(v_level.mark, p_tick),
        'trail_level', price_form(v_level.level, p_tick)
    );
END
$$;

-- As of readable_order: who may not replace an order is shown it as it is.
GRANT EXECUTE ON FUNCTION readable_trail(orders, numeric) TO trading_procedures;
