SET LOCAL ROLE trading_procedures;

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
CREATE OR REPLACE FUNCTION submitted_details(request jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT request - ARRAY[
        'version', 'user_id', 'account_id', 'idempotency_key_days', 'ip_address', 'user_agent', 'email', 'notice',
        'group_size', 'exit_stop_price', 'exit_limit_price'
    ]
$$;

CREATE OR REPLACE FUNCTION submitted_entry(request jsonb) RETURNS audit_entry
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN ROW('SUBMITTED', 'pending_new', submitted_details(request), NULL, NULL)::audit_entry;
END
$$;

-- A denied order: kept with its reason, because compliance asks for it.
CREATE OR REPLACE FUNCTION book_denied_order(
    request jsonb, p_account accounts, p_terms order_terms, p_refusal jsonb, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := priced_order(request, p_account, p_at);
    v_head bytea;
    v_answer jsonb;
BEGIN
    v_order.status := 'denied';
    v_order.failure_code := p_refusal ->> 'code';
    v_order.failure_reason := p_refusal ->> 'message';
    PERFORM insert_priced_order(v_order);
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

-- A filled market order. p_position is the open position that it adds to or takes from, all NULL when it opens one;
-- p_fill.margin is NULL when it takes from it. p_worth is the account after it, NULL when it has to be valued again
-- because a position was reduced. A request without a key (the platform's own order) keeps no answer; it may carry a
-- notice {event_type, reason, orders, risk} of what audit and event tell besides.
-- PL/pgSQL prepares each expression anew in every transaction, so this path has few and large ones: rows are written
-- straight from the request, and p_fill carries what was booked.
CREATE OR REPLACE FUNCTION book_filled_order(
    request jsonb, p_account accounts, p_terms order_terms, p_fill order_fill, p_position positions, p_worth jsonb,
    p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_position positions;
    v_head bytea;
    v_sequence bigint;
    v_at_text text := utc_text(p_at);
BEGIN
    p_fill.order_id := uuidv7();
    p_fill.fill_id := uuidv7();
    p_fill.position_id := coalesce(p_position.id, uuidv7());
    p_fill.quantity := request ->> 'quantity';
    p_fill.transaction_id := 'txn_' || floor(extract(EPOCH FROM p_at)) || '_' || p_fill.fill_id;
    p_fill.realized_pnl := CASE WHEN p_fill.margin IS NULL
        THEN realized_pnl(p_account, p_terms, p_position, p_fill.quantity, p_fill.price, p_at) ELSE 0
    END;
    p_fill.balance := p_account.balance + p_fill.realized_pnl - p_fill.commission;
    v_position := write_fill(request, p_account, p_fill, p_position, p_at);
    v_head := append_execution(
        p_account, p_fill.order_id, submitted_details(request), jsonb_build_object(
            'margin', p_fill.margin, 'commission', p_fill.commission, 'reduces', p_fill.margin IS NULL
        ), execution_details(p_terms, p_fill), fill_details(p_fill, v_position), p_at, request, request #>> '{notice,reason}'
    );
    UPDATE accounts SET
        balance = p_fill.balance,
        ledger_version = ledger_version + CASE WHEN p_fill.margin IS NULL THEN 2 ELSE 1 END,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 4,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;

    IF p_worth IS NULL THEN
        SELECT account_fact(p_account, w.balance, w.unrealized_pnl, w.margin_used, w.hedged_margin_credit)
        INTO p_worth
        FROM account_valuation(p_account.user_id, p_account.id) AS w;
    END IF;
    v_sequence := append_event(
        p_account, p_account.last_sequence + 1, coalesce(request #>> '{notice,event_type}', 'order.filled'),
        filled_payload(request, p_terms, p_fill, v_position, p_worth, v_at_text), request ->> 'request_id', p_at
    );
    IF v_position.status = 'closed' THEN
        PERFORM end_exits(request, p_account, v_position.id, p_at);
    END IF;
    RETURN keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash',
        filled_answer(request, p_account, p_fill, v_sequence, v_at_text),
        (request ->> 'idempotency_key_days')::integer, p_at
    );
END
$$;

-- The rows of a market order that is filled: order, position, fill, ledger. Returns the position as the fill leaves it.
CREATE OR REPLACE FUNCTION write_fill(
    request jsonb, p_account accounts, p_fill order_fill, p_position positions, p_at timestamptz
) RETURNS positions
LANGUAGE plpgsql AS $$
DECLARE
    v_booked fills;
BEGIN
    INSERT INTO orders (
        user_id, id, account_id, client_order_id, parent_order_id, symbol, order_type, side, quantity, stop_loss,
        take_profit, time_in_force, max_slippage, reduce_only, execution_instructions, status, filled_quantity,
        leaves_quantity, last_price, average_price, slippage, commission, total_cost, position_id, transaction_id,
        strategy_id, signal_id, component_name, metadata, idempotency_key, request_id, created_at, updated_at,
        executed_at
    ) VALUES (
        p_account.user_id, p_fill.order_id, p_account.id, request ->> 'client_order_id',
        (request ->> 'parent_order_id')::uuid, request ->> 'symbol', request ->> 'order_type', request ->> 'side',
        p_fill.quantity, (request ->> 'stop_loss')::numeric, (request ->> 'take_profit')::numeric,
        request ->> 'time_in_force', (request ->> 'max_slippage')::numeric,
        coalesce((request ->> 'reduce_only')::boolean, false), request -> 'execution_instructions', 'filled',
        p_fill.quantity, 0, p_fill.price, p_fill.price, p_fill.slippage, p_fill.commission,
        coalesce(p_fill.margin, 0) + p_fill.commission, p_fill.position_id, p_fill.transaction_id,
        request ->> 'strategy_id', request ->> 'signal_id', request ->> 'component_name', request -> 'metadata',
        request ->> 'idempotency_key', request ->> 'request_id', p_at, p_at, p_at
    );
    IF request ->> 'client_order_id' IS NOT NULL THEN
        INSERT INTO client_order_ids (user_id, account_id, client_order_id, order_id)
        VALUES (p_account.user_id, p_account.id, request ->> 'client_order_id', p_fill.order_id);
    END IF;
    p_position := write_position(request, p_account, p_fill, p_position, p_at);
    v_booked := settle_fill(
        p_account, p_fill, request ->> 'symbol', request ->> 'side', 'internal', p_fill.fill_id::text, p_at
    );
    RETURN p_position;
END
$$;

-- The fill, and what it does to the balance: realized P&L first, then the commission, which every fill books even when
-- it is zero.
CREATE OR REPLACE FUNCTION settle_fill(
    p_account accounts, p_fill order_fill, p_symbol text, p_side text, p_venue text, p_trade_id text, p_at timestamptz
) RETURNS fills
LANGUAGE plpgsql AS $$
DECLARE
    v_booked fills;
    v_number bigint := p_account.ledger_version + 1;
BEGIN
    INSERT INTO fills (
        user_id, id, order_id, account_id, position_id, symbol, side, quantity, price, commission, realized_pnl,
        venue, trade_id, transact_time
    ) VALUES (
        p_account.user_id, p_fill.fill_id, p_fill.order_id, p_account.id, p_fill.position_id, p_symbol, p_side,
        p_fill.quantity, p_fill.price, p_fill.commission, p_fill.realized_pnl, p_venue, p_trade_id, p_at
    )
    RETURNING * INTO v_booked;
    IF p_fill.margin IS NULL THEN
        INSERT INTO ledger_entries (
            user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id,
            position_id, created_at
        ) VALUES (
            p_account.user_id, p_account.id, v_number, 'realized_pnl', p_fill.realized_pnl,
            p_account.balance + p_fill.realized_pnl, p_account.currency, p_fill.order_id, p_fill.fill_id,
            p_fill.position_id, p_at
        );
        v_number := v_number + 1;
    END IF;
    INSERT INTO ledger_entries (
        user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id,
        position_id, created_at
    ) VALUES (
        p_account.user_id, p_account.id, v_number, 'commission', -p_fill.commission, p_fill.balance,
        p_account.currency, p_fill.order_id, p_fill.fill_id, p_fill.position_id, p_at
    );
    RETURN v_booked;
END
$$;

-- The position as the fill leaves it: opened, added to at the weighted average, or reduced with its margin released
-- in proportion.
CREATE OR REPLACE FUNCTION write_position(
    request jsonb, p_account accounts, p_fill order_fill, p_position positions, p_at timestamptz
) RETURNS positions
LANGUAGE plpgsql AS $$
BEGIN
    IF p_position.id IS NULL THEN
        INSERT INTO positions (
            user_id, id, account_id, order_id, symbol, side, quantity, opened_quantity, entry_price, margin_used,
            stop_loss, take_profit, commission_paid, transaction_id, created_at, updated_at
        ) VALUES (
            p_account.user_id, p_fill.position_id, p_account.id, p_fill.order_id, request ->> 'symbol',
            CASE request ->> 'side' WHEN 'buy' THEN 'long' ELSE 'short' END, p_fill.quantity, p_fill.quantity,
            p_fill.price, p_fill.margin, (request ->> 'stop_loss')::numeric, (request ->> 'take_profit')::numeric,
            p_fill.commission, p_fill.transaction_id, p_at, p_at
        )
        RETURNING * INTO p_position;
        RETURN p_position;
    END IF;
    UPDATE positions AS p SET
        quantity = m.quantity,
        opened_quantity = greatest(p.opened_quantity, p.opened_quantity + m.quantity - p.quantity),
        entry_price = CASE WHEN p_fill.margin IS NULL THEN p.entry_price ELSE trim_scale(
            (p.entry_price * p.quantity + p_fill.price * p_fill.quantity) / m.quantity
        ) END,
        margin_used = CASE WHEN p_fill.margin IS NULL
            THEN remaining_margin(p.margin_used, p.quantity, m.quantity, p_account.currency)
            ELSE p.margin_used + p_fill.margin
        END,
        stop_loss = coalesce((request ->> 'stop_loss')::numeric, p.stop_loss),
        take_profit = coalesce((request ->> 'take_profit')::numeric, p.take_profit),
        -- A stop loss that comes with an order stands still.
        trail_distance = CASE WHEN request ->> 'stop_loss' IS NULL THEN p.trail_distance END,
        trail_mark = CASE WHEN request ->> 'stop_loss' IS NULL THEN p.trail_mark END,
        commission_paid = p.commission_paid + p_fill.commission,
        realized_pnl = p.realized_pnl + p_fill.realized_pnl,
        status = CASE m.quantity WHEN 0 THEN 'closed' ELSE 'open' END,
        transaction_id = p_fill.transaction_id,
        version = p.version + 1,
        updated_at = p_at,
        closed_at = CASE m.quantity WHEN 0 THEN p_at END
    FROM (SELECT p_position.quantity + CASE WHEN p_fill.margin IS NULL THEN -1 ELSE 1 END * p_fill.quantity) AS m (quantity)
    WHERE p.user_id = p_position.user_id AND p.id = p_position.id
    RETURNING p.* INTO STRICT p_position;
    RETURN p_position;
END
$$;

-- The margin of a position that is reduced from p_quantity to p_left lots: released in proportion, rounded once.
CREATE OR REPLACE FUNCTION remaining_margin(
    p_margin numeric, p_quantity numeric, p_left numeric, p_currency text
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT round_money(p_margin * p_left / p_quantity, p_currency)
$$;

-- What the caller is told, and told again whenever the key comes again.
CREATE OR REPLACE FUNCTION filled_answer(
    request jsonb, p_account accounts, p_fill order_fill, p_sequence bigint, p_at_text text
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'outcome', 'filled', 'order_id', p_fill.order_id, 'position_id', p_fill.position_id,
        'account_id', p_account.id, 'client_order_id', request -> 'client_order_id', 'symbol', request -> 'symbol',
        'side', request -> 'side', 'order_type', request -> 'order_type', 'quantity', p_fill.quantity,
        'status', 'filled', 'execution_price', p_fill.price, 'slippage', p_fill.slippage,
        'commission', p_fill.commission, 'margin', coalesce(p_fill.margin, 0), 'realized_pnl', p_fill.realized_pnl,
        'total_cost', coalesce(p_fill.margin, 0) + p_fill.commission, 'currency', p_account.currency,
        'transaction_id', p_fill.transaction_id, 'sequence', p_sequence, 'transact_time', p_at_text
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

-- How the price came about, and what was booked: with them the audit alone can be rebuilt from.
CREATE OR REPLACE FUNCTION execution_details(p_terms order_terms, p_fill order_fill) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'venue', 'internal', 'bid', p_terms.bid, 'ask', p_terms.ask, 'source', p_terms.source,
        'quoted_at', utc_text(p_terms.quoted_at), 'slippage', p_fill.slippage_details
    );
END
$$;

CREATE OR REPLACE FUNCTION fill_details(p_fill order_fill, p_position positions) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'fill_id', p_fill.fill_id, 'quantity', p_fill.quantity, 'price', p_fill.price,
        'commission', p_fill.commission, 'realized_pnl', p_fill.realized_pnl, 'balance_after', p_fill.balance,
        'transaction_id', p_fill.transaction_id,
        'position', jsonb_build_object(
            'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
            'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
            'margin_used', p_position.margin_used, 'realized_pnl', p_position.realized_pnl,
            'stop_loss', p_position.stop_loss, 'take_profit', p_position.take_profit,
            'trail_distance', p_position.trail_distance, 'status', p_position.status
        )
    );
END
$$;

-- The event of an executed order: the order pending, then filled; its fill, position and account. A notice adds the
-- orders that changed before it, and a risk. What the order opened is marked as it was judged.
CREATE OR REPLACE FUNCTION filled_payload(
    request jsonb, p_terms order_terms, p_fill order_fill, p_position positions, p_worth jsonb, p_at_text text
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_asked jsonb := jsonb_build_object(
        'order_id', p_fill.order_id, 'client_order_id', request -> 'client_order_id', 'symbol', p_position.symbol,
        'side', request -> 'side', 'order_type', request -> 'order_type', 'quantity', p_fill.quantity
    );
    v_orders jsonb := jsonb_build_array(
        v_asked || '{"status": "pending_new", "filled_quantity": 0}',
        v_asked || jsonb_build_object(
            'status', 'filled', 'filled_quantity', p_fill.quantity, 'average_price', p_fill.price,
            'executed_at', p_at_text
        )
    );
    v_payload jsonb := jsonb_build_object(
        'orders', v_orders,
        'fills', jsonb_build_array(jsonb_build_object(
            'order_id', p_fill.order_id, 'fill_id', p_fill.fill_id, 'trade_id', p_fill.fill_id,
            'quantity', p_fill.quantity, 'price', p_fill.price, 'total_filled', p_fill.quantity, 'leaves_quantity', 0,
            'transact_time', p_at_text
        )),
        'positions', jsonb_build_array(jsonb_build_object(
            'position_id', p_position.id, 'symbol', p_position.symbol, 'side', p_position.side,
            'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
            'current_price', CASE p_position.side WHEN 'long' THEN p_terms.bid ELSE p_terms.ask END,
            'unrealized_pnl', CASE WHEN p_position.order_id = p_fill.order_id
                THEN round_money(p_fill.unrealized_pnl, p_worth ->> 'currency')
                ELSE position_pnl(p_position, p_terms, p_worth ->> 'currency')
            END,
            'margin_used', p_position.margin_used, 'realized_pnl', p_position.realized_pnl,
            'status', p_position.status
        )),
        'account', p_worth
    );
BEGIN
    IF request ? 'notice' THEN
        v_payload := v_payload || jsonb_build_object(
            'orders', coalesce(request #> '{notice,orders}', '[]') || v_orders, 'risk', request #> '{notice,risk}'
        );
    END IF;
    RETURN v_payload;
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
