-- Writes an order's outcome under its account's lock: order, fill, position, ledger, audit, event, the stored answer.

-- Inserts the orders row. p_outcome holds what the request does not say.
CREATE OR REPLACE FUNCTION insert_order(
    request jsonb, p_account accounts, p_outcome orders, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders (
        user_id, id, account_id, client_order_id, parent_order_id, symbol, order_type, side, quantity, stop_loss,
        take_profit, time_in_force, max_slippage, reduce_only, execution_instructions, position_size_check, status,
        filled_quantity, leaves_quantity, last_price, average_price, slippage, commission, total_cost, position_id,
        transaction_id, failure_code, failure_reason, strategy_id, signal_id, component_name, metadata,
        idempotency_key, request_id, created_at, updated_at, executed_at
    ) VALUES (
        p_account.user_id, p_outcome.id, p_account.id, request ->> 'client_order_id',
        (request ->> 'parent_order_id')::uuid, request ->> 'symbol', request ->> 'order_type', request ->> 'side',
        (request ->> 'quantity')::numeric, (request ->> 'stop_loss')::numeric, (request ->> 'take_profit')::numeric,
        request ->> 'time_in_force', (request ->> 'max_slippage')::numeric,
        coalesce((request ->> 'reduce_only')::boolean, false), request -> 'execution_instructions',
        coalesce((request ->> 'position_size_check')::boolean, true), p_outcome.status,
        p_outcome.filled_quantity, p_outcome.leaves_quantity, p_outcome.last_price, p_outcome.average_price,
        p_outcome.slippage, p_outcome.commission, p_outcome.total_cost, p_outcome.position_id,
        p_outcome.transaction_id, p_outcome.failure_code, p_outcome.failure_reason, request ->> 'strategy_id',
        request ->> 'signal_id', request ->> 'component_name', request -> 'metadata',
        request ->> 'idempotency_key', request ->> 'request_id', p_at, p_at, p_outcome.executed_at
    );
    IF request ->> 'client_order_id' IS NOT NULL THEN
        INSERT INTO client_order_ids (user_id, account_id, client_order_id, order_id)
        VALUES (p_account.user_id, p_account.id, request ->> 'client_order_id', p_outcome.id);
    END IF;
END
$$;

-- The order as the events tell it.
CREATE OR REPLACE FUNCTION order_fact(request jsonb, p_outcome orders, p_status text) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'order_id', p_outcome.id, 'client_order_id', request -> 'client_order_id', 'symbol', request -> 'symbol',
        'side', request -> 'side', 'order_type', request -> 'order_type',
        'quantity', (request ->> 'quantity')::numeric,
        'status', p_status
    ) || CASE WHEN p_status = p_outcome.status THEN jsonb_build_object(
        'filled_quantity', p_outcome.filled_quantity, 'average_price', p_outcome.average_price,
        'executed_at', utc_text(p_outcome.executed_at), 'failure_code', p_outcome.failure_code,
        'failure_reason', p_outcome.failure_reason
    ) ELSE '{"filled_quantity": 0}' END;
END
$$;

CREATE OR REPLACE FUNCTION request_pii(request jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'ip_address', request ->> 'ip_address', 'user_agent', request ->> 'user_agent', 'email', request ->> 'email'
    );
END
$$;

-- What was asked for, without what the answer or the personal data hold.
CREATE OR REPLACE FUNCTION submitted_entry(request jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN jsonb_build_object('action', 'SUBMITTED', 'status', 'pending_new', 'details', request - ARRAY[
        'version', 'user_id', 'account_id', 'idempotency_key_days', 'ip_address', 'user_agent', 'email'
    ]);
END
$$;

-- A denied order: kept with its reason, because compliance asks for it.
CREATE OR REPLACE FUNCTION book_denied_order(
    request jsonb, p_account accounts, p_terms order_terms, p_refusal jsonb, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders;
    v_answer jsonb;
    v_head bytea;
BEGIN
    v_order.id := uuidv7();
    v_order.status := 'denied';
    v_order.filled_quantity := 0;
    v_order.leaves_quantity := 0;
    v_order.commission := 0;
    v_order.failure_code := p_refusal ->> 'code';
    v_order.failure_reason := p_refusal ->> 'message';
    PERFORM insert_order(request, p_account, v_order, p_at);
    v_head := append_audit(p_account, v_order.id, jsonb_build_array(
        submitted_entry(request),
        jsonb_build_object(
            'action', 'REJECTED', 'status', 'denied', 'reason', p_refusal ->> 'message', 'details', p_refusal
        )
    ), p_at, request_pii(request));
    UPDATE accounts SET
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 2,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'order.denied',
        jsonb_build_object('orders', jsonb_build_array(order_fact(request, v_order, 'denied'))),
        request ->> 'request_id', p_at
    );
    v_answer := p_refusal || jsonb_build_object(
        'outcome', 'denied', 'order_id', v_order.id, 'account_id', p_account.id,
        'sequence', p_account.last_sequence + 1, 'transact_time', utc_text(p_at)
    );
    PERFORM keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash', v_answer,
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
    v_order orders;
    v_fill_id uuid := uuidv7();
    v_reducing boolean := p_fill.margin IS NULL;
    v_quantity numeric := (request ->> 'quantity')::numeric;
    v_position positions;
    v_realized numeric := 0;
    v_balance numeric;
    v_worth jsonb := p_worth;
    v_head bytea;
    v_answer jsonb;
BEGIN
    v_order.id := uuidv7();
    v_order.transaction_id := format('txn_%s_%s', floor(extract(EPOCH FROM p_at)), v_fill_id);
    IF v_reducing THEN
        v_realized := realized_pnl(p_account, p_terms, p_position, v_quantity, p_fill.price, p_at);
    END IF;
    v_position := position_after(request, p_account, p_fill, p_position, v_order, v_realized, p_at);
    v_balance := p_account.balance + v_realized - p_fill.commission;

    v_order.status := 'filled';
    v_order.filled_quantity := v_quantity;
    v_order.leaves_quantity := 0;
    v_order.last_price := p_fill.price;
    v_order.average_price := p_fill.price;
    v_order.slippage := p_fill.slippage;
    v_order.commission := p_fill.commission;
    v_order.total_cost := coalesce(p_fill.margin, 0) + p_fill.commission;
    v_order.position_id := v_position.id;
    v_order.executed_at := p_at;
    PERFORM insert_order(request, p_account, v_order, p_at);
    PERFORM write_position(p_position.id IS NULL, v_position);
    INSERT INTO fills (
        user_id, id, order_id, account_id, position_id, symbol, side, quantity, price, commission, realized_pnl,
        venue, trade_id, transact_time
    ) VALUES (
        p_account.user_id, v_fill_id, v_order.id, p_account.id, v_position.id, p_terms.symbol, request ->> 'side',
        v_quantity, p_fill.price, p_fill.commission, v_realized, 'internal', v_fill_id::text, p_at
    );
    PERFORM write_fill_to_ledger(p_account, v_order, v_fill_id, v_realized, v_reducing, p_at);
    v_head := append_audit(
        p_account, v_order.id,
        filled_entries(request, p_terms, p_fill, v_order, v_position, v_fill_id, v_realized, v_balance),
        p_at, request_pii(request)
    );
    UPDATE accounts SET
        balance = v_balance,
        ledger_version = ledger_version + CASE WHEN v_reducing THEN 2 ELSE 1 END,
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
        filled_payload(request, p_terms, v_order, v_position, v_fill_id, v_worth, p_at), request ->> 'request_id', p_at
    );
    v_answer := jsonb_build_object(
        'outcome', 'filled', 'order_id', v_order.id, 'position_id', v_position.id, 'account_id', p_account.id,
        'client_order_id', request -> 'client_order_id', 'symbol', p_terms.symbol, 'side', request ->> 'side',
        'order_type', request ->> 'order_type', 'quantity', v_quantity, 'status', 'filled',
        'execution_price', p_fill.price, 'slippage', p_fill.slippage, 'commission', p_fill.commission,
        'margin', coalesce(p_fill.margin, 0), 'realized_pnl', v_realized, 'total_cost', v_order.total_cost,
        'currency', p_account.currency, 'transaction_id', v_order.transaction_id,
        'sequence', p_account.last_sequence + 1, 'transact_time', utc_text(p_at)
    );
    PERFORM keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, p_at
    );
    RETURN v_answer;
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
    request jsonb, p_account accounts, p_fill order_fill, p_position positions, p_order orders, p_realized numeric,
    p_at timestamptz
) RETURNS positions
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_quantity numeric := (request ->> 'quantity')::numeric;
    v_position positions := p_position;
BEGIN
    IF p_position.id IS NULL THEN
        v_position.user_id := p_account.user_id;
        v_position.id := uuidv7();
        v_position.account_id := p_account.id;
        v_position.order_id := p_order.id;
        v_position.symbol := request ->> 'symbol';
        v_position.side := CASE request ->> 'side' WHEN 'buy' THEN 'long' ELSE 'short' END;
        v_position.quantity := v_quantity;
        v_position.opened_quantity := v_quantity;
        v_position.entry_price := p_fill.price;
        v_position.margin_used := p_fill.margin;
        v_position.commission_paid := 0;
        v_position.realized_pnl := 0;
        v_position.status := 'open';
        v_position.created_at := p_at;
    ELSIF p_fill.margin IS NOT NULL THEN
        v_position.quantity := p_position.quantity + v_quantity;
        v_position.opened_quantity := p_position.opened_quantity + v_quantity;
        v_position.entry_price := (
            p_position.entry_price * p_position.quantity + p_fill.price * v_quantity
        ) / v_position.quantity;
        v_position.entry_price := trim_scale(v_position.entry_price);
        v_position.margin_used := p_position.margin_used + p_fill.margin;
    ELSE
        v_position.quantity := p_position.quantity - v_quantity;
        v_position.margin_used := round_money(
            p_position.margin_used * v_position.quantity / p_position.quantity, p_account.currency
        );
        v_position.status := CASE v_position.quantity WHEN 0 THEN 'closed' ELSE 'open' END;
        v_position.closed_at := CASE v_position.quantity WHEN 0 THEN p_at END;
    END IF;
    v_position.stop_loss := coalesce((request ->> 'stop_loss')::numeric, p_position.stop_loss);
    v_position.take_profit := coalesce((request ->> 'take_profit')::numeric, p_position.take_profit);
    v_position.commission_paid := v_position.commission_paid + p_fill.commission;
    v_position.realized_pnl := v_position.realized_pnl + p_realized;
    v_position.transaction_id := p_order.transaction_id;
    v_position.updated_at := p_at;
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
CREATE OR REPLACE FUNCTION write_fill_to_ledger(
    p_account accounts, p_order orders, p_fill_id uuid, p_realized numeric, p_reducing boolean, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint := p_account.ledger_version + 1;
BEGIN
    IF p_reducing THEN
        INSERT INTO ledger_entries (
            user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id,
            position_id, created_at
        ) VALUES (
            p_account.user_id, p_account.id, v_number, 'realized_pnl', p_realized,
            p_account.balance + p_realized, p_account.currency, p_order.id, p_fill_id, p_order.position_id, p_at
        );
        v_number := v_number + 1;
    END IF;
    INSERT INTO ledger_entries (
        user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id,
        position_id, created_at
    ) VALUES (
        p_account.user_id, p_account.id, v_number, 'commission', -p_order.commission,
        p_account.balance + p_realized - p_order.commission, p_account.currency, p_order.id, p_fill_id,
        p_order.position_id, p_at
    );
END
$$;

-- The four steps of an executed order, with what a rebuild from the audit alone needs.
CREATE OR REPLACE FUNCTION filled_entries(
    request jsonb, p_terms order_terms, p_fill order_fill, p_order orders, p_position positions, p_fill_id uuid,
    p_realized numeric, p_balance numeric
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_array(
        submitted_entry(request),
        jsonb_build_object('action', 'APPROVED', 'status', 'pending_new', 'details', jsonb_build_object(
            'margin', p_fill.margin, 'commission', p_fill.commission, 'reduces', p_fill.margin IS NULL
        )),
        jsonb_build_object('action', 'EXECUTED', 'status', 'pending_new', 'details', jsonb_build_object(
            'venue', 'internal', 'bid', p_terms.bid, 'ask', p_terms.ask, 'source', p_terms.source,
            'quoted_at', utc_text(p_terms.quoted_at), 'slippage', p_fill.slippage_details
        )),
        jsonb_build_object('action', 'FILLED', 'status', 'filled', 'details', jsonb_build_object(
            'fill_id', p_fill_id, 'quantity', p_order.filled_quantity, 'price', p_fill.price,
            'commission', p_fill.commission, 'realized_pnl', p_realized, 'balance_after', p_balance,
            'transaction_id', p_order.transaction_id,
            'position', jsonb_build_object(
                'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
                'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
                'margin_used', p_position.margin_used, 'realized_pnl', p_position.realized_pnl,
                'stop_loss', p_position.stop_loss, 'take_profit', p_position.take_profit,
                'status', p_position.status
            )
        ))
    );
END
$$;

-- The event of an executed order: the order pending, then filled; its fill, position and account.
CREATE OR REPLACE FUNCTION filled_payload(
    request jsonb, p_terms order_terms, p_order orders, p_position positions, p_fill_id uuid, p_worth jsonb,
    p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'orders', jsonb_build_array(
            order_fact(request, p_order, 'pending_new'), order_fact(request, p_order, 'filled')
        ),
        'fills', jsonb_build_array(jsonb_build_object(
            'order_id', p_order.id, 'fill_id', p_fill_id, 'trade_id', p_fill_id::text,
            'quantity', p_order.filled_quantity, 'price', p_order.last_price,
            'total_filled', p_order.filled_quantity, 'leaves_quantity', p_order.leaves_quantity,
            'transact_time', utc_text(p_at)
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
        'insert_order(jsonb, accounts, orders, timestamptz)',
        'order_fact(jsonb, orders, text)',
        'request_pii(jsonb)',
        'submitted_entry(jsonb)',
        'book_denied_order(jsonb, accounts, order_terms, jsonb, timestamptz)',
        'book_filled_order(jsonb, accounts, order_terms, order_fill, positions, jsonb, timestamptz)',
        'realized_pnl(accounts, order_terms, positions, numeric, numeric, timestamptz)',
        'position_after(jsonb, accounts, order_fill, positions, orders, numeric, timestamptz)',
        'write_position(boolean, positions)',
        'write_fill_to_ledger(accounts, orders, uuid, numeric, boolean, timestamptz)',
        'filled_entries(jsonb, order_terms, order_fill, orders, positions, uuid, numeric, numeric)',
        'filled_payload(jsonb, order_terms, orders, positions, uuid, jsonb, timestamptz)',
        'position_pnl(positions, order_terms, text)'
    ]::regprocedure [] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO trading_procedures', v_function);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END
$$;
