SET LOCAL ROLE trading_procedures;

-- Books a trade of an order that works, under its account's lock: what a venue says it traded, or what a price that
-- touched the order comes to here.

-- The rows of a trade, in one part or two, and what audit and event tell of them; finish_trade does the rest.
-- request {venue, trade_id, quantity, price, venue_order_id?, retry_attempt?}. p_rates_at: when rates must be fresh to
-- convert by, NULL for any age.
-- account and order_after are not written yet; facts {fills, positions}.
CREATE OR REPLACE FUNCTION write_trade(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_at timestamptz, p_rates_at timestamptz,
    OUT account accounts, OUT order_after orders, OUT entries audit_entry[], OUT facts jsonb
)
LANGUAGE plpgsql AS $$
DECLARE
    v_left numeric := (request ->> 'quantity')::numeric;
    -- Rounded once for both parts, which then add up to what one fill would have cost.
    v_due numeric := commission_of_part(p_account, p_order, p_terms, v_left, p_rates_at);
    v_part record;
    v_fills jsonb := '[]';
    v_positions jsonb := '[]';
BEGIN
    account := p_account;
    order_after := p_order;
    order_after.last_price := (request ->> 'price')::numeric;
    -- Twice at most: what closes a position, then what opens one.
    WHILE v_left > 0 LOOP
        SELECT * INTO v_part
        FROM write_fill_part(request, account, order_after, p_terms, v_left, v_due, p_at, p_rates_at);
        v_left := v_left - (v_part.booked).quantity;
        v_due := v_due - (v_part.booked).commission;
        account := v_part.account;
        order_after := v_part.order_after;
        entries := entries || fill_entry(request, order_after, v_part.booked, v_part.held, account.balance);
        v_fills := v_fills || fill_fact(order_after, v_part.booked);
        v_positions := v_positions || position_fact(v_part.held, p_terms, account.currency);
    END LOOP;
    facts := jsonb_build_object('fills', v_fills, 'positions', v_positions);
END
$$;

-- At most p_left of a trade, for which p_due of commission is left: what the open position that it takes from can give,
-- or all of it where it opens or adds. The account, the order and the position as they are after it, and its fill.
CREATE OR REPLACE FUNCTION write_fill_part(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_left numeric, p_due numeric,
    p_at timestamptz, p_rates_at timestamptz,
    OUT account accounts, OUT order_after orders, OUT booked fills, OUT held positions
)
LANGUAGE plpgsql AS $$
DECLARE
    v_before positions := position_of_fill(p_account, p_order);
    v_reducing boolean := coalesce(v_before.side = CASE p_order.side WHEN 'buy' THEN 'short' ELSE 'long' END, false);
    v_part order_fill;
    v_trade_id text := request ->> 'trade_id';
BEGIN
    v_part.order_id := p_order.id;
    v_part.fill_id := uuidv7();
    v_part.position_id := coalesce(v_before.id, uuidv7());
    v_part.quantity := CASE WHEN v_reducing THEN least(p_left, v_before.quantity) ELSE p_left END;
    v_part.price := p_order.last_price;
    v_part.transaction_id := 'txn_' || floor(extract(EPOCH FROM p_at)) || '_' || v_part.fill_id;
    v_part.commission := CASE
        WHEN v_part.quantity < p_left THEN commission_of_part(
            p_account, p_order, p_terms, v_part.quantity, p_rates_at
        )
        ELSE p_due
    END;
    v_part.realized_pnl := 0;
    IF v_reducing THEN
        v_part.realized_pnl := realized_pnl(p_account, p_terms, v_before, v_part.quantity, v_part.price, p_rates_at);
    ELSE
        v_part.margin := order_margin(p_account, p_terms, v_part.quantity, v_part.price, p_rates_at);
        IF v_part.quantity < (request ->> 'quantity')::numeric THEN
            v_trade_id := opening_trade_id(v_trade_id);
        END IF;
    END IF;
    v_part.balance := p_account.balance + v_part.realized_pnl - v_part.commission;
    held := write_position(jsonb_build_object(
        'symbol', p_order.symbol, 'side', p_order.side,
        'stop_loss', CASE WHEN NOT v_reducing THEN p_order.stop_loss END,
        'take_profit', CASE WHEN NOT v_reducing THEN p_order.take_profit END
    ), p_account, v_part, v_before, p_at);
    booked := settle_fill(
        p_account, v_part, p_order.symbol, p_order.side, request ->> 'venue', v_trade_id, p_at
    );
    account := p_account;
    account.balance := v_part.balance;
    account.ledger_version := p_account.ledger_version + CASE WHEN v_reducing THEN 2 ELSE 1 END;
    order_after := order_after_part(p_order, booked, held, v_part);
END
$$;

CREATE OR REPLACE FUNCTION opening_trade_id(p_trade_id text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_trade_id || '/opened'
$$;

-- The order with a part of it filled; the average is that of all its fills.
CREATE OR REPLACE FUNCTION order_after_part(
    p_order orders, p_booked fills, p_position positions, p_cost order_fill
) RETURNS orders
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_order orders := p_order;
BEGIN
    v_order.filled_quantity := p_order.filled_quantity + p_booked.quantity;
    v_order.average_price := trim_scale((
        coalesce(p_order.average_price, 0) * p_order.filled_quantity + p_booked.price * p_booked.quantity
    ) / v_order.filled_quantity);
    v_order.commission := p_order.commission + p_booked.commission;
    v_order.total_cost := coalesce(p_order.total_cost, 0) + coalesce(p_cost.margin, 0) + p_booked.commission;
    v_order.position_id := p_position.id;
    v_order.transaction_id := p_position.transaction_id;
    -- A fill that arrives after the cancel is booked; with nothing left the order is filled after all.
    IF v_order.filled_quantity = v_order.quantity THEN
        v_order.status := 'filled';
        v_order.executed_at := p_booked.transact_time;
    ELSIF p_order.status <> 'canceled' THEN
        v_order.status := 'partially_filled';
    END IF;
    v_order.leaves_quantity := CASE v_order.status
        WHEN 'partially_filled' THEN v_order.quantity - v_order.filled_quantity - v_order.canceled_quantity
        ELSE 0
    END;
    RETURN v_order;
END
$$;

-- The open position that a fill meets: netting, the symbol's; hedging, the one that the order was sent to close, or
-- that it has opened itself. A bracket's exit takes only from the one that its entry has opened.
CREATE OR REPLACE FUNCTION position_of_fill(p_account accounts, p_order orders) RETURNS positions
LANGUAGE sql AS $$
    SELECT p.*
    FROM positions AS p
    WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
        AND p.symbol = p_order.symbol AND CASE
            WHEN p_order.contingency = 'bracket_exit' THEN p.id = (
                SELECT e.position_id FROM orders AS e
                WHERE e.user_id = p_order.user_id AND e.id = p_order.parent_order_id
            )
            ELSE p_account.position_mode = 'netting' OR p.order_id = p_order.id OR p.id = (
                SELECT r.closes_position_id FROM venue_routes AS r
                WHERE r.user_id = p_order.user_id AND r.order_id = p_order.id
            )
        END
    FOR NO KEY UPDATE
$$;

-- What the commission of the order grows by: in parts it costs what it would cost in one, to the cent, and its minimum
-- once. Of the rates of now both, so that a rate that has moved charges nothing for the parts before.
CREATE OR REPLACE FUNCTION commission_of_part(
    p_account accounts, p_order orders, p_terms order_terms, p_quantity numeric, p_rates_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN charged_commission(p_account, p_terms, p_order.filled_quantity + p_quantity, p_rates_at)
        - CASE p_order.filled_quantity
            WHEN 0 THEN 0 ELSE charged_commission(p_account, p_terms, p_order.filled_quantity, p_rates_at)
        END;
END
$$;

CREATE OR REPLACE FUNCTION update_filled_order(p_order orders, p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
    UPDATE orders SET
        status = p_order.status,
        filled_quantity = p_order.filled_quantity,
        leaves_quantity = p_order.leaves_quantity,
        last_price = p_order.last_price,
        average_price = p_order.average_price,
        slippage = p_order.slippage,
        commission = p_order.commission,
        total_cost = p_order.total_cost,
        position_id = p_order.position_id,
        transaction_id = p_order.transaction_id,
        venue_order_id = p_order.venue_order_id,
        executed_at = p_order.executed_at,
        version = version + 1,
        updated_at = p_at
    WHERE user_id = p_order.user_id AND id = p_order.id
$$;

-- What follows the rows of a trade: the order's, audit, account and event; the event's sequence.
CREATE OR REPLACE FUNCTION finish_trade(
    request jsonb, p_account accounts, p_order orders, p_entries audit_entry[], p_facts jsonb, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    -- Of an order that came just now, the first step tells whose request it was.
    v_head bytea := append_audit(
        p_account, p_order.id, p_entries, p_at, CASE WHEN p_entries[1].action = 'SUBMITTED' THEN request END
    );
BEGIN
    PERFORM update_filled_order(p_order, p_at);
    UPDATE accounts SET
        balance = p_account.balance,
        ledger_version = p_account.ledger_version,
        margin_reserved = p_account.margin_reserved,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + cardinality(p_entries),
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    RETURN append_event(
        p_account, p_account.last_sequence + 1,
        CASE p_order.status WHEN 'filled' THEN 'order.filled' ELSE 'order.partial' END, jsonb_build_object(
            'orders', jsonb_build_array(routed_order_fact(p_order)), 'account', present_worth(p_account)
        ) || p_facts, coalesce(request ->> 'request_id', p_order.request_id), p_at
    );
END
$$;

-- The step of a fill, with what a rebuild from the audit alone needs.
CREATE OR REPLACE FUNCTION fill_entry(
    request jsonb, p_order orders, p_booked fills, p_position positions, p_balance numeric
) RETURNS audit_entry
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ROW('FILLED', p_order.status, jsonb_build_object(
        'fill_id', p_booked.id, 'venue', p_booked.venue, 'trade_id', p_booked.trade_id,
        'venue_order_id', p_order.venue_order_id, 'quantity', p_booked.quantity, 'price', p_booked.price,
        'commission', p_booked.commission, 'realized_pnl', p_booked.realized_pnl, 'balance_after', p_balance,
        'transaction_id', p_position.transaction_id,
        'position', jsonb_build_object(
            'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
            'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
            'margin_used', p_position.margin_used, 'realized_pnl', p_position.realized_pnl,
            'stop_loss', p_position.stop_loss, 'take_profit', p_position.take_profit,
            'trail_distance', p_position.trail_distance, 'status', p_position.status
        )
    ), NULL, (request ->> 'retry_attempt')::integer)::audit_entry;
END
$$;

CREATE OR REPLACE FUNCTION fill_fact(p_order orders, p_booked fills) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'order_id', p_order.id, 'fill_id', p_booked.id, 'trade_id', p_booked.trade_id, 'venue', p_booked.venue,
        'quantity', p_booked.quantity, 'price', p_booked.price, 'total_filled', p_order.filled_quantity,
        'leaves_quantity', p_order.quantity - p_order.filled_quantity, 'transact_time', utc_text(p_booked.transact_time)
    );
END
$$;

CREATE OR REPLACE FUNCTION position_fact(p_position positions, p_terms order_terms, p_currency text) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
        'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
        'current_price', CASE p_position.side WHEN 'long' THEN p_terms.bid ELSE p_terms.ask END,
        'unrealized_pnl', position_pnl(p_position, p_terms, p_currency), 'margin_used', p_position.margin_used,
        'realized_pnl', p_position.realized_pnl, 'status', p_position.status
    );
END
$$;

-- The account as its owner is told about it, valued from its rows at quotes of any age.
CREATE OR REPLACE FUNCTION present_worth(p_account accounts) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT account_fact(p_account, w.balance, w.unrealized_pnl, w.margin_used, w.hedged_margin_credit)
    FROM account_valuation(p_account.user_id, p_account.id) AS w
$$;
