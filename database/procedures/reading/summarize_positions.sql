SET LOCAL ROLE trading_readers;

-- What a user holds, by account and symbol: a list of {account_id, currency, symbol, positions, long_quantity,
-- short_quantity, net_quantity (lots, of a short below zero), long_entry_price, short_entry_price (averages weighted by
-- lots; NULL without a position of that side), unrealized_pnl (NULL while one has no price), margin_used, which
-- hedged_margin_credit is taken off}.
CREATE OR REPLACE FUNCTION summarize_positions(p_user_id uuid, p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'account_id', s.account_id,
            'currency', s.currency,
            'symbol', s.symbol,
            'positions', s.positions,
            'long_quantity', number_form(s.long_quantity),
            'short_quantity', number_form(s.short_quantity),
            'net_quantity', number_form(s.long_quantity - s.short_quantity),
            'long_entry_price', average_form(s.long_value / nullif(s.long_quantity, 0), i.tick_size),
            'short_entry_price', average_form(s.short_value / nullif(s.short_quantity, 0), i.tick_size),
            'unrealized_pnl', money_form(s.unrealized_pnl, s.currency),
            'margin_used', money_form(s.booked - h.credit, s.currency),
            'hedged_margin_credit', money_form(h.credit, s.currency)
        ) ORDER BY s.account_id, s.symbol), '[]')
        FROM (
            SELECT
                a.id AS account_id, a.currency, v.symbol, count(*) AS positions,
                coalesce(sum(v.quantity) FILTER (WHERE v.side = 'long'), 0) AS long_quantity,
                coalesce(sum(v.quantity) FILTER (WHERE v.side = 'short'), 0) AS short_quantity,
                sum(v.quantity * v.entry_price) FILTER (WHERE v.side = 'long') AS long_value,
                sum(v.quantity * v.entry_price) FILTER (WHERE v.side = 'short') AS short_value,
                CASE count(*) WHEN count(v.unrealized_pnl) THEN sum(v.unrealized_pnl) END AS unrealized_pnl,
                sum(v.margin_used) AS booked,
                coalesce(sum(v.margin_used) FILTER (WHERE v.side = 'long'), 0) AS long_margin,
                coalesce(sum(v.margin_used) FILTER (WHERE v.side = 'short'), 0) AS short_margin
            FROM accounts AS a
            CROSS JOIN LATERAL valued_positions(a.user_id, a.id) AS v
            WHERE a.user_id = p_user_id AND (p_account_id IS NULL OR a.id = p_account_id)
            GROUP BY a.id, a.currency, v.symbol
        ) AS s
        INNER JOIN instruments AS i ON s.symbol = i.symbol
        CROSS JOIN LATERAL (
            SELECT hedged_margin_credit(
                i.hedged_margin_percent, s.long_quantity, s.long_margin, s.short_quantity, s.short_margin, s.currency
            ) AS credit
        ) AS h
    );
END
$$;

-- An average need not end: two places beyond the tick are shown.
CREATE OR REPLACE FUNCTION average_form(p_price numeric, p_tick numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT price_form(round(p_price, scale(p_tick) + 2), p_tick)
$$;

GRANT EXECUTE ON FUNCTION summarize_positions(uuid, uuid) TO function_trader;
