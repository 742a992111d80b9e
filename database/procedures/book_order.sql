-- Writes an order's outcome under its account's lock: order, fill, position, ledger, audit, event, the stored answer.

-- The order that is asked for, as a row without an outcome: only what a caller may say is taken from the request.
CREATE OR REPLACE FUNCTION requested_order(request jsonb, p_account accounts, p_at timestamptz) RETURNS orders
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_order orders;
BEGIN
    v_order.user_id := p_account.user_id;
    v_order.id := uuidv7();
    v_order.account_id := p_account.id;
    v_order.client_order_id := request ->> 'client_order_id';
    v_order.parent_order_id := (request ->> 'parent_order_id')::uuid;
    v_order.symbol := request ->> 'symbol';
    v_order.order_type := request ->> 'order_type';
    v_order.side := request ->> 'side';
    v_order.quantity := (request ->> 'quantity')::numeric;
    v_order.stop_loss := (request ->> 'stop_loss')::numeric;
    v_order.take_profit := (request ->> 'take_profit')::numeric;
    v_order.time_in_force := request ->> 'time_in_force';
    v_order.max_slippage := (request ->> 'max_slippage')::numeric;
    v_order.reduce_only := coalesce((request ->> 'reduce_only')::boolean, false);
    v_order.execution_instructions := request -> 'execution_instructions';
    v_order.filled_quantity := 0;
    v_order.leaves_quantity := 0;
    v_order.commission := 0;
    v_order.strategy_id := request ->> 'strategy_id';
    v_order.signal_id := request ->> 'signal_id';
    v_order.component_name := request ->> 'component_name';
    v_order.metadata := request -> 'metadata';
    v_order.idempotency_key := request ->> 'idempotency_key';
    v_order.request_id := request ->> 'request_id';
    v_order.created_at := p_at;
    v_order.updated_at := p_at;
    RETURN v_order;
END
$$;

-- Inserts from a row of the table's own types: its columns are checked as the row is made, not again here.
CREATE OR REPLACE FUNCTION insert_order(p_order orders) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders (
        user_id, id, account_id, client_order_id, parent_order_id, symbol, order_type, side, quantity, stop_loss,
        take_profit, time_in_force, max_slippage, reduce_only, execution_instructions, status, filled_quantity,
        leaves_quantity, last_price, average_price, slippage, commission, total_cost, position_id, transaction_id,
        failure_code, failure_reason, strategy_id, signal_id, component_name, metadata, idempotency_key, request_id,
        created_at, updated_at, executed_at
    ) VALUES (
        p_order.user_id, p_order.id, p_order.account_id, p_order.client_order_id, p_order.parent_order_id,
        p_order.symbol, p_order.order_type, p_order.side, p_order.quantity, p_order.stop_loss, p_order.take_profit,
        p_order.time_in_force, p_order.max_slippage, p_order.reduce_only, p_order.execution_instructions,
        p_order.status, p_order.filled_quantity, p_order.leaves_quantity, p_order.last_price, p_order.average_price,
        p_order.slippage, p_order.commission, p_order.total_cost, p_order.position_id, p_order.transaction_id,
        p_order.failure_code, p_order.failure_reason, p_order.strategy_id, p_order.signal_id, p_order.component_name,
        p_order.metadata, p_order.idempotency_key, p_order.request_id, p_order.created_at, p_order.updated_at,
        p_order.executed_at
    );
    IF p_order.client_order_id IS NOT NULL THEN
        INSERT INTO client_order_ids (user_id, account_id, client_order_id, order_id)
        VALUES (p_order.user_id, p_order.account_id, p_order.client_order_id, p_order.id);
    END IF;
END
$$;

-- The order as the events tell it, before and with its outcome.
CREATE OR REPLACE FUNCTION order_facts(p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_asked jsonb := jsonb_build_object(
        'order_id', p_order.id, 'client_order_id', p_order.client_order_id, 'symbol', p_order.symbol,
        'side', p_order.side, 'order_type', p_order.order_type, 'quantity', p_order.quantity
    );
BEGIN
    IF p_order.status = 'denied' THEN
        RETURN jsonb_build_array(v_asked || jsonb_build_object(
            'status', p_order.status, 'filled_quantity', 0, 'failure_code', p_order.failure_code,
            'failure_reason', p_order.failure_reason
        ));
    END IF;
    RETURN jsonb_build_array(
        v_asked || '{"status": "pending_new", "filled_quantity": 0}',
        v_asked || jsonb_build_object(
            'status', p_order.status, 'filled_quantity', p_order.filled_quantity,
            'average_price', p_order.average_price, 'executed_at', utc_text(p_order.executed_at)
        )
    );
END
$$;

-- What was asked for, without what the answer or the personal data hold.
CREATE OR REPLACE FUNCTION submitted_entry(request jsonb) RETURNS audit_entry
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN ROW('SUBMITTED', 'pending_new', request - ARRAY[
        'version', 'user_id', 'account_id', 'idempotency_key_days', 'ip_address', 'user_agent', 'email'
    ], NULL, NULL)::audit_entry;
END
$$;

-- A denied order: kept with its reason, because compliance asks for it.
CREATE OR REPLACE FUNCTION book_denied_order(
    request jsonb, p_account accounts, p_terms order_terms, p_refusal jsonb, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := requested_order(request, p_account, p_at);
    v_head bytea;
    v_answer jsonb;
BEGIN
    v_order.status := 'denied';
    v_order.failure_code := p_refusal ->> 'code';
    v_order.failure_reason := p_refusal ->> 'message';
    PERFORM insert_order(v_order);
    v_head := append_audit(p_account, v_order.id, ARRAY[
        submitted_entry(request),
        ROW('REJECTED', 'denied', p_refusal, p_refusal ->> 'message', NULL)::audit_entry
    ], p_at, request);
    UPDATE accounts SET
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 2,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'order.denied', jsonb_build_object('orders', order_facts(v_order)),
        v_order.request_id, p_at
    );
    v_answer := p_refusal || jsonb_build_object(
        'outcome', 'denied', 'order_id', v_order.id, 'account_id', p_account.id,
        'sequence', p_account.last_sequence + 1, 'transact_time', utc_text(p_at)
    );
    PERFORM keep_answer(
        p_account, v_order.idempotency_key, request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, p_at
    );
    RETURN v_answer;
END
$$;

-- A filled order. p_position is the open position that the order adds to or takes from, all NULL when it opens one.
-- p_worth is the account after it, NULL when it has to be valued again because a position was reduced.
CREATE OR REPLACE FUNCTION book_filled_order(
    request jsonb, p_account accounts, p_terms order_terms, p_fill order_fill, p_position positions, p_worth jsonb,
    p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := filled_order(requested_order(request, p_account, p_at), p_fill, p_at);
    v_fill fills := fill_of_order(v_order, p_account, p_terms, p_position, p_fill);
    v_position positions := position_after(v_order, v_fill, p_account, p_fill, p_position);
    v_balance numeric := p_account.balance + v_fill.realized_pnl - v_fill.commission;
    v_worth jsonb := p_worth;
    v_head bytea;
    v_answer jsonb;
BEGIN
    v_order.position_id := v_position.id;
    v_fill.position_id := v_position.id;
    v_order.transaction_id := v_position.transaction_id;
    PERFORM insert_order(v_order);
    PERFORM write_position(p_position.id IS NULL, v_position);
    PERFORM insert_fill(v_fill);
    PERFORM write_fill_to_ledger(p_account, v_fill, p_fill.margin IS NULL);
    v_head := append_audit(
        p_account, v_order.id, filled_entries(request, p_terms, p_fill, v_fill, v_position, v_balance), p_at, request
    );
    UPDATE accounts SET
        balance = v_balance,
        ledger_version = ledger_version + CASE WHEN p_fill.margin IS NULL THEN 2 ELSE 1 END,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 4,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;

    IF v_worth IS NULL THEN
        SELECT account_fact(p_account, w.balance, w.unrealized_pnl, w.margin_used) INTO v_worth
        FROM account_valuation(p_account.user_id, p_account.id) AS w;
    END IF;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'order.filled',
        filled_payload(p_terms, v_order, v_fill, v_position, v_worth), v_order.request_id, p_at
    );
    v_answer := filled_answer(p_account, p_fill, v_order, v_fill);
    PERFORM keep_answer(
        p_account, v_order.idempotency_key, request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, p_at
    );
    RETURN v_answer;
END
$$;

CREATE OR REPLACE FUNCTION filled_order(p_order orders, p_fill order_fill, p_at timestamptz) RETURNS orders
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    p_order.status := 'filled';
    p_order.filled_quantity := p_order.quantity;
    p_order.last_price := p_fill.price;
    p_order.average_price := p_fill.price;
    p_order.slippage := p_fill.slippage;
    p_order.commission := p_fill.commission;
    p_order.total_cost := coalesce(p_fill.margin, 0) + p_fill.commission;
    p_order.executed_at := p_at;
    RETURN p_order;
END
$$;

-- The fill of the whole order, with what it realizes of the position that it takes from.
CREATE OR REPLACE FUNCTION fill_of_order(
    p_order orders, p_account accounts, p_terms order_terms, p_position positions, p_fill order_fill
) RETURNS fills
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fill fills;
BEGIN
    v_fill.user_id := p_order.user_id;
    v_fill.id := uuidv7();
    v_fill.order_id := p_order.id;
    v_fill.account_id := p_order.account_id;
    v_fill.symbol := p_order.symbol;
    v_fill.side := p_order.side;
    v_fill.quantity := p_order.quantity;
    v_fill.price := p_fill.price;
    v_fill.commission := p_fill.commission;
    v_fill.realized_pnl := 0;
    IF p_fill.margin IS NULL THEN
        v_fill.realized_pnl := realized_pnl(
            p_account, p_terms, p_position, p_order.quantity, p_fill.price, p_order.executed_at
        );
    END IF;
    v_fill.venue := 'internal';
    v_fill.trade_id := v_fill.id::text;
    v_fill.transact_time := p_order.executed_at;
    RETURN v_fill;
END
$$;

CREATE OR REPLACE FUNCTION insert_fill(p_fill fills) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fills (
        user_id, id, order_id, account_id, position_id, symbol, side, quantity, price, commission, realized_pnl,
        venue, trade_id, transact_time
    ) VALUES (
        p_fill.user_id, p_fill.id, p_fill.order_id, p_fill.account_id, p_fill.position_id, p_fill.symbol, p_fill.side,
        p_fill.quantity, p_fill.price, p_fill.commission, p_fill.realized_pnl, p_fill.venue, p_fill.trade_id,
        p_fill.transact_time
    );
END
$$;

-- What the caller is told, and told again whenever the key comes again.
CREATE OR REPLACE FUNCTION filled_answer(
    p_account accounts, p_fill order_fill, p_order orders, p_booked fills
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'outcome', 'filled', 'order_id', p_order.id, 'position_id', p_order.position_id, 'account_id', p_account.id,
        'client_order_id', p_order.client_order_id, 'symbol', p_order.symbol, 'side', p_order.side,
        'order_type', p_order.order_type, 'quantity', p_order.quantity, 'status', p_order.status,
        'execution_price', p_order.average_price, 'slippage', p_order.slippage, 'commission', p_order.commission,
        'margin', coalesce(p_fill.margin, 0), 'realized_pnl', p_booked.realized_pnl,
        'total_cost', p_order.total_cost, 'currency', p_account.currency, 'transaction_id', p_order.transaction_id,
        'sequence', p_account.last_sequence + 1, 'transact_time', utc_text(p_order.executed_at)
    );
END
$$;

-- What closing p_quantity of a position at p_price realizes, in account currency, rounded once.
CREATE OR REPLACE FUNCTION realized_pnl(
    p_account accounts, p_terms order_terms, p_position positions, p_quantity numeric, p_price numeric,
    p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_pnl numeric := p_quantity * p_terms.contract_size * CASE p_position.side
        WHEN 'long' THEN p_price - p_position.entry_price ELSE p_position.entry_price - p_price
    END;
BEGIN
    RETURN round_money(
        convert_amount(v_pnl, p_terms.quote_currency, p_account.currency, p_at), p_account.currency
    );
END
$$;

-- The position as the fill leaves it: opened, added to at the weighted average, or reduced with its margin released
-- in proportion.
CREATE OR REPLACE FUNCTION position_after(
    p_order orders, p_booked fills, p_account accounts, p_fill order_fill, p_position positions
) RETURNS positions
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_position positions := p_position;
BEGIN
    IF p_position.id IS NULL THEN
        v_position.user_id := p_order.user_id;
        v_position.id := uuidv7();
        v_position.account_id := p_order.account_id;
        v_position.order_id := p_order.id;
        v_position.symbol := p_order.symbol;
        v_position.side := CASE p_order.side WHEN 'buy' THEN 'long' ELSE 'short' END;
        v_position.quantity := p_order.quantity;
        v_position.opened_quantity := p_order.quantity;
        v_position.entry_price := p_fill.price;
        v_position.margin_used := p_fill.margin;
        v_position.commission_paid := 0;
        v_position.realized_pnl := 0;
        v_position.status := 'open';
        v_position.created_at := p_order.executed_at;
    ELSIF p_fill.margin IS NOT NULL THEN
        v_position.quantity := p_position.quantity + p_order.quantity;
        v_position.opened_quantity := p_position.opened_quantity + p_order.quantity;
        v_position.entry_price := trim_scale((
            p_position.entry_price * p_position.quantity + p_fill.price * p_order.quantity
        ) / v_position.quantity);
        v_position.margin_used := p_position.margin_used + p_fill.margin;
    ELSE
        v_position.quantity := p_position.quantity - p_order.quantity;
        v_position.margin_used := round_money(
            p_position.margin_used * v_position.quantity / p_position.quantity, p_account.currency
        );
        v_position.status := CASE v_position.quantity WHEN 0 THEN 'closed' ELSE 'open' END;
        v_position.closed_at := CASE v_position.quantity WHEN 0 THEN p_order.executed_at END;
    END IF;
    v_position.stop_loss := coalesce(p_order.stop_loss, p_position.stop_loss);
    v_position.take_profit := coalesce(p_order.take_profit, p_position.take_profit);
    v_position.commission_paid := v_position.commission_paid + p_booked.commission;
    v_position.realized_pnl := v_position.realized_pnl + p_booked.realized_pnl;
    v_position.transaction_id := format('txn_%s_%s', floor(extract(EPOCH FROM p_order.executed_at)), p_booked.id);
    v_position.updated_at := p_order.executed_at;
    RETURN v_position;
END
$$;

CREATE OR REPLACE FUNCTION write_position(p_new boolean, p_position positions) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_new THEN
        INSERT INTO positions (
            user_id, id, account_id, order_id, symbol, side, quantity, opened_quantity, entry_price, margin_used,
            stop_loss, take_profit, commission_paid, realized_pnl, status, transaction_id, created_at, updated_at
        ) VALUES (
            p_position.user_id, p_position.id, p_position.account_id, p_position.order_id, p_position.symbol,
            p_position.side, p_position.quantity, p_position.opened_quantity, p_position.entry_price,
            p_position.margin_used, p_position.stop_loss, p_position.take_profit, p_position.commission_paid,
            p_position.realized_pnl, p_position.status, p_position.transaction_id, p_position.created_at,
            p_position.updated_at
        );
        RETURN;
    END IF;
    UPDATE positions SET
        quantity = p_position.quantity,
        opened_quantity = p_position.opened_quantity,
        entry_price = p_position.entry_price,
        margin_used = p_position.margin_used,
        stop_loss = p_position.stop_loss,
        take_profit = p_position.take_profit,
        commission_paid = p_position.commission_paid,
        realized_pnl = p_position.realized_pnl,
        status = p_position.status,
        transaction_id = p_position.transaction_id,
        updated_at = p_position.updated_at,
        closed_at = p_position.closed_at
    WHERE user_id = p_position.user_id AND id = p_position.id;
END
$$;

-- Realized P&L first, then the commission, which every fill books even when it is zero.
CREATE OR REPLACE FUNCTION write_fill_to_ledger(p_account accounts, p_booked fills, p_reducing boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint := p_account.ledger_version + 1;
BEGIN
    IF p_reducing THEN
        INSERT INTO ledger_entries (
            user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id,
            position_id, created_at
        ) VALUES (
            p_booked.user_id, p_booked.account_id, v_number, 'realized_pnl', p_booked.realized_pnl,
            p_account.balance + p_booked.realized_pnl, p_account.currency, p_booked.order_id, p_booked.id,
            p_booked.position_id, p_booked.transact_time
        );
        v_number := v_number + 1;
    END IF;
    INSERT INTO ledger_entries (
        user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id,
        position_id, created_at
    ) VALUES (
        p_booked.user_id, p_booked.account_id, v_number, 'commission', -p_booked.commission,
        p_account.balance + p_booked.realized_pnl - p_booked.commission, p_account.currency, p_booked.order_id,
        p_booked.id, p_booked.position_id, p_booked.transact_time
    );
END
$$;

-- The four steps of an executed order, with what a rebuild from the audit alone needs.
CREATE OR REPLACE FUNCTION filled_entries(
    request jsonb, p_terms order_terms, p_fill order_fill, p_booked fills, p_position positions, p_balance numeric
) RETURNS audit_entry[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ARRAY[
        submitted_entry(request),
        ROW('APPROVED', 'pending_new', jsonb_build_object(
            'margin', p_fill.margin, 'commission', p_fill.commission, 'reduces', p_fill.margin IS NULL
        ), NULL, NULL)::audit_entry,
        ROW('EXECUTED', 'pending_new', jsonb_build_object(
            'venue', p_booked.venue, 'bid', p_terms.bid, 'ask', p_terms.ask, 'source', p_terms.source,
            'quoted_at', utc_text(p_terms.quoted_at), 'slippage', p_fill.slippage_details
        ), NULL, NULL)::audit_entry,
        ROW('FILLED', 'filled', jsonb_build_object(
            'fill_id', p_booked.id, 'quantity', p_booked.quantity, 'price', p_booked.price,
            'commission', p_booked.commission, 'realized_pnl', p_booked.realized_pnl, 'balance_after', p_balance,
            'transaction_id', p_position.transaction_id,
            'position', jsonb_build_object(
                'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
                'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
                'margin_used', p_position.margin_used, 'realized_pnl', p_position.realized_pnl,
                'stop_loss', p_position.stop_loss, 'take_profit', p_position.take_profit,
                'status', p_position.status
            )
        ), NULL, NULL)::audit_entry
    ];
END
$$;

-- The event of an executed order: the order pending, then filled; its fill, position and account.
CREATE OR REPLACE FUNCTION filled_payload(
    p_terms order_terms, p_order orders, p_booked fills, p_position positions, p_worth jsonb
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'orders', order_facts(p_order),
        'fills', jsonb_build_array(jsonb_build_object(
            'order_id', p_order.id, 'fill_id', p_booked.id, 'trade_id', p_booked.trade_id,
            'quantity', p_booked.quantity, 'price', p_booked.price, 'total_filled', p_order.filled_quantity,
            'leaves_quantity', p_order.leaves_quantity, 'transact_time', utc_text(p_booked.transact_time)
        )),
        'positions', jsonb_build_array(jsonb_build_object(
            'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
            'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
            'current_price', CASE p_position.side WHEN 'long' THEN p_terms.bid ELSE p_terms.ask END,
            'unrealized_pnl', position_pnl(p_position, p_terms, p_worth ->> 'currency'),
            'margin_used', p_position.margin_used, 'realized_pnl', p_position.realized_pnl,
            'status', p_position.status
        )),
        'account', p_worth
    );
END
$$;

-- The unrealized P&L of a position at the quote of its order, in account currency, rounded for display.
CREATE OR REPLACE FUNCTION position_pnl(p_position positions, p_terms order_terms, p_currency text) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_pnl numeric := p_position.quantity * p_terms.contract_size * CASE p_position.side
        WHEN 'long' THEN p_terms.bid - p_position.entry_price ELSE p_position.entry_price - p_terms.ask
    END;
BEGIN
    RETURN round_money(convert_amount(v_pnl, p_terms.quote_currency, p_currency), p_currency);
END
$$;

DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOREACH v_function IN ARRAY ARRAY[
        'requested_order(jsonb, accounts, timestamptz)',
        'insert_order(orders)',
        'order_facts(orders)',
        'submitted_entry(jsonb)',
        'book_denied_order(jsonb, accounts, order_terms, jsonb, timestamptz)',
        'book_filled_order(jsonb, accounts, order_terms, order_fill, positions, jsonb, timestamptz)',
        'filled_order(orders, order_fill, timestamptz)',
        'fill_of_order(orders, accounts, order_terms, positions, order_fill)',
        'insert_fill(fills)',
        'filled_answer(accounts, order_fill, orders, fills)',
        'realized_pnl(accounts, order_terms, positions, numeric, numeric, timestamptz)',
        'position_after(orders, fills, accounts, order_fill, positions)',
        'write_position(boolean, positions)',
        'write_fill_to_ledger(accounts, fills, boolean)',
        'filled_entries(jsonb, order_terms, order_fill, fills, positions, numeric)',
        'filled_payload(order_terms, orders, fills, positions, jsonb)',
        'position_pnl(positions, order_terms, text)'
    ]::regprocedure [] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO trading_procedures', v_function);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END
$$;
