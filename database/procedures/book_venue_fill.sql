-- Books what a venue says it traded, as a fact: at its price, whatever has happened since the order was accepted. Named
-- by (venue, trade_id), so that hearing of it again changes nothing.
--
-- request {version: 1, user_id, order_id, venue, trade_id, quantity, price, venue_order_id?, retry_attempt?,
--   request_id?}
-- -> {outcome: 'booked' | 'known', status, filled_quantity, sequence}; `sequence` is that of the event, NULL for a
--   known fill.
-- Raises TR001 no such order, TR006 a value out of its bounds, TR012 a fill that cannot be: more than the order has
-- left, or a trade_id that stood for another trade, TR013 an order that is not with this venue or has ended there.
CREATE OR REPLACE FUNCTION book_venue_fill(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_order orders;
    v_route venue_routes;
    v_at timestamptz;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_venue_fill(request);
    v_account := lock_account_of_order(request);
    v_at := clock_timestamp();
    SELECT * INTO STRICT v_order FROM orders
    WHERE user_id = v_account.user_id AND id = (request ->> 'order_id')::uuid FOR NO KEY UPDATE;
    v_route := lock_route(v_order);
    IF venue_fill_is_known(request, v_order) THEN
        RETURN jsonb_build_object(
            'outcome', 'known', 'status', v_order.status, 'filled_quantity', v_order.filled_quantity, 'sequence', NULL
        );
    END IF;
    IF v_route.venue <> request ->> 'venue'
        OR v_order.status NOT IN ('pending_new', 'partially_filled', 'canceled', 'filled') THEN
        RAISE EXCEPTION 'Order % is % and not in flight to %.', v_order.id, v_order.status, request ->> 'venue'
        USING ERRCODE = 'TR013', DETAIL = jsonb_build_object(
            'field', 'order_id', 'value', v_order.id, 'constraint', 'an order in flight to this venue'
        )::text;
    END IF;
    IF v_order.filled_quantity + (request ->> 'quantity')::numeric > v_order.quantity THEN
        PERFORM refuse_fill(request, 'quantity', request ->> 'quantity', format(
            'at most %s, what the order has left', v_order.quantity - v_order.filled_quantity
        ));
    END IF;
    RETURN write_venue_fill(request, v_account, v_order, v_route, v_at);
END
$$;

CREATE OR REPLACE FUNCTION check_venue_fill(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- NaN is above every number.
    IF (request ->> 'quantity')::numeric > 0 AND (request ->> 'quantity')::numeric < 'Infinity'
        AND (request ->> 'price')::numeric > 0 AND (request ->> 'price')::numeric < 'Infinity'
        AND length(request ->> 'trade_id') BETWEEN 1 AND 128 THEN
        RETURN;
    END IF;
    PERFORM refuse_value('trade_id', request ->> 'trade_id', 'named, of a quantity and a price above 0');
END
$$;

CREATE OR REPLACE FUNCTION refuse_fill(request jsonb, p_field text, p_value text, p_constraint text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Fill % of venue % cannot be booked: % must be %.', request ->> 'trade_id', request ->> 'venue',
        p_field, p_constraint
    USING ERRCODE = 'TR012', DETAIL = jsonb_build_object(
        'field', p_field, 'value', p_value, 'constraint', p_constraint, 'order_id', request ->> 'order_id'
    )::text;
END
$$;

-- Whether this trade stands in the books; one that stands there with other figures is refused. A trade that closed one
-- position and opened another stands there in two parts.
CREATE OR REPLACE FUNCTION venue_fill_is_known(request jsonb, p_order orders) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_known record;
BEGIN
    SELECT sum(f.quantity) AS quantity, min(f.price) AS price, min(f.order_id::text) AS order_id INTO v_known
    FROM fills AS f
    WHERE f.user_id = p_order.user_id AND f.venue = request ->> 'venue'
        AND f.trade_id IN (request ->> 'trade_id', opening_trade_id(request ->> 'trade_id'));
    IF v_known.quantity IS NULL THEN
        RETURN false;
    END IF;
    IF (v_known.quantity, v_known.price, v_known.order_id) IS DISTINCT FROM
        ((request ->> 'quantity')::numeric, (request ->> 'price')::numeric, p_order.id::text) THEN
        PERFORM refuse_fill(request, 'trade_id', request ->> 'trade_id', 'one trade for ever');
    END IF;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION opening_trade_id(p_trade_id text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_trade_id || '/opened'
$$;

-- Fill, position, ledger, order, route, audit and event of a trade, in one part or two.
CREATE OR REPLACE FUNCTION write_venue_fill(
    request jsonb, p_account accounts, p_order orders, p_route venue_routes, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_account accounts := p_account;
    v_order orders := p_order;
    v_terms order_terms := terms_of_fill(p_order);
    v_left numeric := (request ->> 'quantity')::numeric;
    v_part record;
    v_entries audit_entry [] := '{}';
    v_fills jsonb := '[]';
    v_positions jsonb := '[]';
BEGIN
    v_order.venue_order_id := coalesce(request ->> 'venue_order_id', v_order.venue_order_id);
    v_order.last_price := (request ->> 'price')::numeric;
    -- Twice at most: what closes a position, then what opens one.
    WHILE v_left > 0 LOOP
        SELECT * INTO v_part FROM write_fill_part(request, v_account, v_order, v_terms, v_left, p_at);
        v_left := v_left - (v_part.booked).quantity;
        v_account := v_part.account;
        v_order := v_part.order_after;
        v_entries := v_entries || fill_entry(request, v_order, v_part.booked, v_part.held, v_account.balance);
        v_fills := v_fills || fill_fact(v_order, v_part.booked);
        v_positions := v_positions || position_fact(v_part.held, v_terms, v_account.currency);
    END LOOP;
    v_order.slippage := trim_scale(abs(v_order.average_price - p_route.reference_price));
    PERFORM update_filled_order(v_order, p_at);
    v_account.margin_reserved := v_account.margin_reserved - release_margin(v_order, p_route, v_account.currency, p_at);
    v_account.audit_head := append_audit(v_account, v_order.id, v_entries, p_at);
    UPDATE accounts SET
        balance = v_account.balance,
        ledger_version = v_account.ledger_version,
        margin_reserved = v_account.margin_reserved,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + cardinality(v_entries),
        audit_head = v_account.audit_head,
        updated_at = p_at
    WHERE user_id = v_account.user_id AND id = v_account.id;
    PERFORM append_event(
        v_account, v_account.last_sequence + 1,
        CASE v_order.status WHEN 'filled' THEN 'order.filled' ELSE 'order.partial' END, jsonb_build_object(
            'orders', jsonb_build_array(routed_order_fact(v_order)), 'fills', v_fills, 'positions', v_positions,
            'account', present_worth(v_account)
        ), coalesce(request ->> 'request_id', v_order.request_id), p_at
    );
    RETURN jsonb_build_object(
        'outcome', 'booked', 'status', v_order.status, 'filled_quantity', v_order.filled_quantity,
        'sequence', v_account.last_sequence + 1
    );
END
$$;

-- At most p_left of a trade: what the open position that it takes from can give, or all of it where it opens or adds.
-- The account, the order and the position as they are after it, and its fill. Rates of any age convert: a trade that
-- was made cannot wait for a fresh one.
CREATE OR REPLACE FUNCTION write_fill_part(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_left numeric, p_at timestamptz,
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
    v_part.commission := commission_of_part(p_account, p_order, p_terms, v_part.quantity);
    v_part.realized_pnl := 0;
    IF v_reducing THEN
        v_part.realized_pnl := realized_pnl(p_account, p_terms, v_before, v_part.quantity, v_part.price, NULL);
    ELSE
        v_part.margin := order_margin(p_account, p_terms, v_part.quantity, v_part.price, NULL);
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
        WHEN 'partially_filled' THEN v_order.quantity - v_order.filled_quantity
        ELSE 0
    END;
    RETURN v_order;
END
$$;

-- The instrument with its newest quote and the user's tier, whether or not the instrument may still be traded.
CREATE OR REPLACE FUNCTION terms_of_fill(p_order orders) RETURNS order_terms
LANGUAGE sql STABLE AS $$
    SELECT jsonb_populate_record(
        NULL::order_terms,
        (to_jsonb(i) - 'trading_state') || coalesce(to_jsonb(q), '{}')
        || jsonb_build_object('account_tier', p.account_tier)
    )
    FROM instruments AS i
    INNER JOIN profiles AS p ON p.id = p_order.user_id
    LEFT JOIN quotes AS q ON i.symbol = q.symbol
    WHERE i.symbol = p_order.symbol
$$;

-- The open position that a fill meets: netting, the symbol's; hedging, the one that the order itself has opened.
CREATE OR REPLACE FUNCTION position_of_fill(p_account accounts, p_order orders) RETURNS positions
LANGUAGE sql AS $$
    SELECT p.*
    FROM positions AS p
    WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
        AND p.symbol = p_order.symbol AND (p_account.position_mode = 'netting' OR p.order_id = p_order.id)
    FOR NO KEY UPDATE
$$;

-- What the commission of the order grows by: in parts it costs what it would cost in one, its minimum once.
CREATE OR REPLACE FUNCTION commission_of_part(
    p_account accounts, p_order orders, p_terms order_terms, p_quantity numeric
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_amount numeric := order_commission(p_terms, p_order.filled_quantity + p_quantity)
        - CASE p_order.filled_quantity WHEN 0 THEN 0 ELSE order_commission(p_terms, p_order.filled_quantity) END;
BEGIN
    -- Converted as what it is, an amount that goes out.
    RETURN -round_money(
        convert_amount(-v_amount, p_terms.quote_currency, p_account.currency, NULL), p_account.currency
    );
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

-- Frees the margin of what is no longer in flight, in proportion, and settles the route of a filled order; how much.
CREATE OR REPLACE FUNCTION release_margin(
    p_order orders, p_route venue_routes, p_currency text, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql AS $$
DECLARE
    v_reserved numeric := round_money(
        p_route.margin_required * (p_order.quantity - p_order.filled_quantity) / p_order.quantity, p_currency
    );
BEGIN
    v_reserved := least(v_reserved, p_route.margin_reserved);
    UPDATE venue_routes SET
        margin_reserved = v_reserved,
        state = CASE p_order.status WHEN 'filled' THEN 'done' ELSE state END,
        updated_at = p_at
    WHERE user_id = p_order.user_id AND order_id = p_order.id;
    RETURN p_route.margin_reserved - v_reserved;
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
            'stop_loss', p_position.stop_loss, 'take_profit', p_position.take_profit, 'status', p_position.status
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
    SELECT account_fact(p_account, w.balance, w.unrealized_pnl, w.margin_used)
    FROM account_valuation(p_account.user_id, p_account.id) AS w
$$;

DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOREACH v_function IN ARRAY ARRAY[
        'book_venue_fill(jsonb)',
        'check_venue_fill(jsonb)',
        'refuse_fill(jsonb, text, text, text)',
        'venue_fill_is_known(jsonb, orders)',
        'opening_trade_id(text)',
        'write_venue_fill(jsonb, accounts, orders, venue_routes, timestamptz)',
        'write_fill_part(jsonb, accounts, orders, order_terms, numeric, timestamptz)',
        'order_after_part(orders, fills, positions, order_fill)',
        'terms_of_fill(orders)',
        'position_of_fill(accounts, orders)',
        'commission_of_part(accounts, orders, order_terms, numeric)',
        'update_filled_order(orders, timestamptz)',
        'release_margin(orders, venue_routes, text, timestamptz)',
        'fill_entry(jsonb, orders, fills, positions, numeric)',
        'fill_fact(orders, fills)',
        'position_fact(positions, order_terms, text)',
        'present_worth(accounts)'
    ]::regprocedure [] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO trading_procedures', v_function);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION book_venue_fill(jsonb) TO function_router;
