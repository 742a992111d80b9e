SET LOCAL ROLE trading_procedures;

-- An open or closed position as requests find it, and as audit, events and answers tell it.

-- The account whose position it is. p_field: the member of the request that names it. Raises TR001.
CREATE OR REPLACE FUNCTION account_of_position(p_user_id uuid, p_position_id uuid, p_field text) RETURNS uuid
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_account_id uuid;
BEGIN
    SELECT p.account_id INTO v_account_id FROM positions AS p WHERE p.user_id = p_user_id AND p.id = p_position_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'You have no position with this id. GET /api/v1/positions lists yours.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', p_field, 'value', p_position_id, 'constraint', 'a position of yours'
        )::text;
    END IF;
    RETURN v_account_id;
END
$$;

-- What a rebuild from the audit alone needs.
CREATE OR REPLACE FUNCTION audited_position(p_position positions) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
        'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
        'margin_used', p_position.margin_used, 'realized_pnl', p_position.realized_pnl,
        'stop_loss', p_position.stop_loss, 'take_profit', p_position.take_profit,
        'trail_distance', p_position.trail_distance, 'status', p_position.status
    );
END
$$;

-- As an event tells it, levels included, marked at the newest quote of its symbol.
CREATE OR REPLACE FUNCTION marked_fact(p_position positions) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT audited_position(p_position) || jsonb_build_object(
        'version', p_position.version, 'current_price', m.price,
        'unrealized_pnl', round_money(convert_amount(
            m.pnl * p_position.quantity * i.contract_size, i.quote_currency, a.currency
        ), a.currency)
    )
    FROM accounts AS a
    CROSS JOIN instruments AS i
    LEFT JOIN quotes AS q USING (symbol)
    CROSS JOIN LATERAL (
        SELECT
            CASE p_position.side WHEN 'long' THEN q.bid ELSE q.ask END AS price,
            CASE p_position.side
                WHEN 'long' THEN q.bid - p_position.entry_price
                ELSE p_position.entry_price - q.ask
            END AS pnl
    ) AS m
    WHERE a.user_id = p_position.user_id AND a.id = p_position.account_id AND i.symbol = p_position.symbol
$$;

-- As its owner reads it: an open one marked at the newest quotes, a closed one without a mark.
CREATE OR REPLACE FUNCTION marked_position(p_position positions) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT readable_position(
        p_position,
        CASE p_position.status WHEN 'open' THEN (f.fact ->> 'current_price')::numeric END,
        CASE p_position.status WHEN 'open' THEN (f.fact ->> 'unrealized_pnl')::numeric END
    )
    FROM (SELECT marked_fact(p_position) AS fact) AS f
$$;
