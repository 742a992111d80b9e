SET LOCAL ROLE trading_readers;

-- What the rolls of a position have come to so far, in account currency, negative where they cost. From the entries, by
-- an index that holds the amounts, because a figure of its own could differ from them.
CREATE OR REPLACE FUNCTION position_financing(p_user_id uuid, p_position_id uuid) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(e.amount), 0)
    FROM ledger_entries AS e
    WHERE e.user_id = p_user_id AND e.position_id = p_position_id AND e.entry_type = 'financing'
$$;

-- A position as its owner reads it: words of the inside, decimals as text, P&L in account currency, times in UTC.
-- p_price and p_unrealized_pnl: its mark now and what closing there would bring; both NULL for a closed one.
CREATE OR REPLACE FUNCTION readable_position(
    p_position positions, p_price numeric, p_unrealized_pnl numeric
) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', p_position.id,
        'account_id', p_position.account_id,
        'order_id', p_position.order_id,
        'symbol', p_position.symbol,
        'side', p_position.side,
        'status', p_position.status,
        'quantity', number_form(p_position.quantity),
        'opened_quantity', number_form(p_position.opened_quantity),
        'entry_price', price_form(p_position.entry_price, i.tick_size),
        'current_price', price_form(p_price, i.tick_size),
        'unrealized_pnl', money_form(p_unrealized_pnl, a.currency),
        'financing', money_form(position_financing(p_position.user_id, p_position.id), a.currency),
        'realized_pnl', money_form(p_position.realized_pnl, a.currency),
        'currency', a.currency,
        'margin_used', money_form(p_position.margin_used, a.currency),
        'stop_loss', price_form(coalesce(t.level, p_position.stop_loss), i.tick_size),
        'take_profit', price_form(p_position.take_profit, i.tick_size),
        'trailing_distance', price_form(p_position.trail_distance, i.tick_size),
        'version', p_position.version,
        'commission_paid', money_form(p_position.commission_paid, a.currency),
        'created_at', utc_text(p_position.created_at),
        'updated_at', utc_text(p_position.updated_at),
        'closed_at', utc_text(p_position.closed_at)
    )
    FROM accounts AS a
    CROSS JOIN instruments AS i
    -- A stop that trails stands where the feed has moved it.
    LEFT JOIN trailing_levels AS t ON t.user_id = p_position.user_id AND t.subject_id = p_position.id
    WHERE a.user_id = p_position.user_id AND a.id = p_position.account_id AND i.symbol = p_position.symbol
$$;

GRANT EXECUTE ON FUNCTION position_financing(uuid, uuid) TO trading_procedures;
GRANT EXECUTE ON FUNCTION readable_position(positions, numeric, numeric) TO trading_procedures;
