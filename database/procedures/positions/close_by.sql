SET LOCAL ROLE trading_procedures;

-- Closes two opposite positions of one symbol against each other, without the market: both are reduced by one quantity
-- at one price, the entry price of the opposite one. So all that comes of it is realized on the position that is named,
-- the difference of the two entry prices, and the spread is paid by neither. No venue fills it, so that it costs no
-- commission; needs no open market and no price but what converts to the account's currency. Open to who may not trade.
-- request {version: 1, user_id, position_id, opposite_position_id, quantity? (all of the smaller one), idempotency_key,
--   request_hash, idempotency_key_days, request_id?, ip_address?, user_agent?, email?}
-- -> {replayed, answer}: as of execute_order_atomic with opposite_position_id, closed_quantity, position and
--   opposite_position (as readable_position tells them). It is one order with a fill of each position, so that its
--   quantity is twice the closed one.
-- Raises TR001 no such position, TR003 key reused, TR004 no fresh rate, TR006 not a pair that can be closed, a quantity
-- out of its bounds, TR010 one is not open any more; then nothing is kept.
CREATE OR REPLACE FUNCTION close_by(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_begun record;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(request, account_of_pair(request));
    RETURN jsonb_build_object('replayed', v_begun.answer IS NOT NULL, 'answer', coalesce(
        v_begun.answer, execute_close_by(request, v_begun.account, clock_timestamp())
    ));
END
$$;

CREATE OR REPLACE FUNCTION account_of_pair(request jsonb) RETURNS uuid
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_user_id CONSTANT uuid := (request ->> 'user_id')::uuid;
    v_account_id CONSTANT uuid := account_of_position(v_user_id, (request ->> 'position_id')::uuid, 'id');
BEGIN
    IF account_of_position(
        v_user_id, (request ->> 'opposite_position_id')::uuid, 'opposite_position_id'
    ) <> v_account_id THEN
        PERFORM refuse_value(
            'opposite_position_id', request ->> 'opposite_position_id', 'a position of the same account'
        );
    END IF;
    RETURN v_account_id;
END
$$;

-- The pair under its account's lock, at p_at: judged, priced, booked.
CREATE OR REPLACE FUNCTION execute_close_by(request jsonb, p_account accounts, p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid := (request ->> 'position_id')::uuid;
    v_opposite_id uuid := (request ->> 'opposite_position_id')::uuid;
    v_position positions;
    v_opposite positions;
    v_pair record;
BEGIN
    -- In key order, like everywhere.
    v_position := position_to_close(p_account, least(v_id, v_opposite_id));
    v_opposite := position_to_close(p_account, greatest(v_id, v_opposite_id));
    IF v_position.id <> v_id THEN
        v_position := v_opposite;
        SELECT * INTO STRICT v_opposite FROM positions AS p WHERE p.user_id = p_account.user_id AND p.id = v_opposite_id;
    END IF;
    v_pair := judge_pair(request, p_account, v_position, v_opposite);
    RETURN book_close_by(request, p_account, v_pair.terms, v_position, v_opposite, v_pair.quantity, p_at);
END
$$;

-- Whether the two can be closed against each other; by what terms, and how much of each.
CREATE OR REPLACE FUNCTION judge_pair(
    request jsonb, p_account accounts, p_position positions, p_opposite positions,
    OUT terms order_terms, OUT quantity numeric
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_smaller CONSTANT numeric := least(p_position.quantity, p_opposite.quantity);
BEGIN
    IF p_account.position_mode <> 'hedging' OR p_position.symbol <> p_opposite.symbol
        OR p_position.side = p_opposite.side THEN
        PERFORM refuse_value('opposite_position_id', p_opposite.id::text, format(
            'a position in %s on the other side, of a hedging account', p_position.symbol
        ));
    END IF;
    SELECT * INTO terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = p_position.symbol;
    IF NOT FOUND THEN
        -- Its instrument is not traded now, so nobody quotes it.
        PERFORM refuse_stale_quote(p_position.symbol);
    END IF;
    quantity := coalesce((request ->> 'quantity')::numeric, v_smaller);
    PERFORM check_pair_quantity(quantity, terms, v_smaller);
END
$$;

-- The bounds of a quantity hold for a part; the smaller position can always be closed whole.
CREATE OR REPLACE FUNCTION check_pair_quantity(p_quantity numeric, p_terms order_terms, p_smaller numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_quantity <> p_smaller AND (
        NOT p_quantity BETWEEN p_terms.quantity_min AND p_smaller OR p_quantity % p_terms.quantity_step <> 0
    ) THEN
        PERFORM refuse_value('quantity', p_quantity::text, format(
            '%s to %s in steps of %s, or left out to close all of the smaller position', p_terms.quantity_min,
            p_smaller, p_terms.quantity_step
        ));
    END IF;
END
$$;

-- One order with two fills, each of which books its realized P&L and its commission of nothing, one event.
CREATE OR REPLACE FUNCTION book_close_by(
    request jsonb, p_account accounts, p_terms order_terms, p_position positions, p_opposite positions,
    p_quantity numeric, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_asked jsonb := close_by_order(request, p_position, p_quantity);
    v_order orders := filled_pair_order(v_asked, p_account, p_opposite.entry_price, p_at);
    v_first order_fill;
    v_second order_fill;
    v_position positions;
    v_opposite positions;
    v_booked fills;
    v_balanced accounts := p_account;
    v_head bytea;
BEGIN
    PERFORM insert_priced_order(v_order);
    -- The named position's comes last, because an order's position is that of its last fill.
    v_first := pair_fill(v_order, p_opposite, p_quantity, p_account.balance, 0);
    v_opposite := write_position(v_asked, p_account, v_first, p_opposite, p_at);
    v_booked := settle_fill(
        p_account, v_first, v_order.symbol, CASE v_order.side WHEN 'buy' THEN 'sell' ELSE 'buy' END, 'internal',
        v_first.fill_id::text, p_at
    );
    v_balanced.ledger_version := p_account.ledger_version + 2;
    v_second := pair_fill(v_order, p_position, p_quantity, v_first.balance, realized_pnl(
        p_account, p_terms, p_position, p_quantity, p_opposite.entry_price, p_at
    ));
    v_position := write_position(v_asked, v_balanced, v_second, p_position, p_at);
    v_booked := settle_fill(
        v_balanced, v_second, v_order.symbol, v_order.side, 'internal', v_second.fill_id::text, p_at
    );
    v_head := append_audit(p_account, v_order.id, ARRAY[
        submitted_entry(v_asked),
        ROW('APPROVED', 'pending_new', '{"margin": null, "commission": 0, "reduces": true}', NULL, NULL)::audit_entry,
        ROW('EXECUTED', 'pending_new', jsonb_build_object(
            'venue', 'internal', 'closed_by', p_opposite.id, 'price', p_opposite.entry_price, 'slipped', 0
        ), NULL, NULL)::audit_entry,
        ROW('FILLED', 'partially_filled', fill_details(v_first, v_opposite), NULL, NULL)::audit_entry,
        ROW('FILLED', 'filled', fill_details(v_second, v_position), NULL, NULL)::audit_entry
    ], p_at, request);
    UPDATE accounts SET
        balance = v_second.balance,
        ledger_version = ledger_version + 4,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 5,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'order.filled', closed_pair_payload(
            p_account, v_order, v_first, v_second, v_position, v_opposite
        ), v_order.request_id, p_at
    );
    PERFORM end_exits(request, p_account, p.id, p_at)
    FROM (VALUES (v_position.id, v_position.status), (v_opposite.id, v_opposite.status)) AS p (id, status)
    WHERE p.status = 'closed';
    RETURN keep_answer(
        p_account, v_order.idempotency_key, request ->> 'request_hash', filled_answer(
            v_asked, p_account, v_second, p_account.last_sequence + 1, utc_text(p_at)
        ) || jsonb_build_object(
            'quantity', v_order.quantity, 'closed_quantity', p_quantity, 'opposite_position_id', v_opposite.id,
            'position', marked_position(v_position), 'opposite_position', marked_position(v_opposite)
        ), (request ->> 'idempotency_key_days')::integer, p_at
    );
END
$$;

-- The order that is asked for: on the side that closes the named position, of both positions' quantity.
CREATE OR REPLACE FUNCTION close_by_order(request jsonb, p_position positions, p_quantity numeric) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN closing_order(request || jsonb_build_object('quantity', 2 * p_quantity), p_position)
        || jsonb_build_object('opposite_position_id', request -> 'opposite_position_id');
END
$$;

CREATE OR REPLACE FUNCTION filled_pair_order(
    p_asked jsonb, p_account accounts, p_price numeric, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_order orders := priced_order(p_asked, p_account, p_at);
BEGIN
    v_order.status := 'filled';
    v_order.filled_quantity := v_order.quantity;
    v_order.last_price := p_price;
    v_order.average_price := p_price;
    v_order.slippage := 0;
    v_order.total_cost := 0;
    v_order.position_id := p_asked ->> 'position_id';
    v_order.transaction_id := 'txn_' || floor(extract(EPOCH FROM p_at)) || '_' || v_order.id;
    v_order.executed_at := p_at;
    RETURN v_order;
END
$$;

-- The half of the order that reduces p_position, and the balance after it.
CREATE OR REPLACE FUNCTION pair_fill(
    p_order orders, p_position positions, p_quantity numeric, p_balance numeric, p_realized_pnl numeric
) RETURNS order_fill
LANGUAGE plpgsql AS $$
DECLARE
    v_fill order_fill;
BEGIN
    v_fill.order_id := p_order.id;
    v_fill.fill_id := uuidv7();
    v_fill.position_id := p_position.id;
    v_fill.quantity := p_quantity;
    v_fill.price := p_order.average_price;
    v_fill.slippage := 0;
    v_fill.commission := 0;
    v_fill.realized_pnl := p_realized_pnl;
    v_fill.balance := p_balance + p_realized_pnl;
    v_fill.transaction_id := p_order.transaction_id;
    RETURN v_fill;
END
$$;

CREATE OR REPLACE FUNCTION closed_pair_payload(
    p_account accounts, p_order orders, p_first order_fill, p_second order_fill, p_position positions,
    p_opposite positions
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'orders', order_facts(p_order),
        'fills', (
            SELECT jsonb_agg(jsonb_build_object(
                'order_id', p_order.id, 'fill_id', f.fill_id, 'trade_id', f.fill_id, 'quantity', f.quantity,
                'price', f.price, 'total_filled', f.place * f.quantity,
                'leaves_quantity', p_order.quantity - f.place * f.quantity,
                'transact_time', utc_text(p_order.executed_at)
            ) ORDER BY f.place)
            FROM (VALUES
                (1, p_first.fill_id, p_first.quantity, p_first.price),
                (2, p_second.fill_id, p_second.quantity, p_second.price)
            ) AS f (place, fill_id, quantity, price)
        ),
        'positions', jsonb_build_array(marked_fact(p_position), marked_fact(p_opposite)),
        'account', present_worth(p_account)
    );
END
$$;

GRANT EXECUTE ON FUNCTION close_by(jsonb) TO function_trader;
