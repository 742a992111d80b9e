SET LOCAL ROLE trading_procedures;

-- Accepts a market order for an instrument whose venue is not ours: judged like one that is executed here, at the
-- present quote, then booked as pending_new with its margin reserved. What it fills at is the venue's to say.
--
-- request as execute_order_atomic takes it.
-- -> {replayed, answer: {outcome: 'pending_new', order_id, account_id, client_order_id, symbol, side, order_type,
--   quantity, status, venue, sequence, transact_time, ...} with all that order_fact tells, or 'denied', as
--   book_denied_order makes it}.
-- An instrument that has come back to the internal venue is executed at once: outcome 'filled'.
-- Raises what execute_order_atomic raises. A raise keeps nothing and leaves the key free.
CREATE OR REPLACE FUNCTION accept_order(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_order jsonb := as_a_caller_may_say(request);
    v_account accounts;
    v_answer jsonb;
    v_venue text;
BEGIN
    PERFORM check_request_version(request);
    v_answer := replayed_answer(
        v_user_id, resolve_account(v_user_id, (request ->> 'account_id')::uuid), request ->> 'idempotency_key',
        request ->> 'request_hash'
    );
    IF v_answer IS NULL THEN
        v_account := lock_account(v_user_id, (request ->> 'account_id')::uuid);
        -- Again, because the racer that held the lock may have used the key.
        v_answer := replayed_answer(
            v_user_id, v_account.id, request ->> 'idempotency_key', request ->> 'request_hash'
        );
    END IF;
    IF v_answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_answer);
    END IF;
    SELECT i.venue INTO v_venue FROM instruments AS i WHERE i.symbol = request ->> 'symbol';
    IF v_venue = 'internal' THEN
        v_answer := execute_market_order(v_order, v_account, clock_timestamp());
    ELSE
        v_answer := accept_routed_order(v_order, v_account, v_venue, clock_timestamp());
    END IF;
    RETURN jsonb_build_object('replayed', false, 'answer', v_answer);
END
$$;

-- The order under its account's lock, at p_at: judged as execute_market_order judges, what is in flight counted.
CREATE OR REPLACE FUNCTION accept_routed_order(
    request jsonb, p_account accounts, p_venue text, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_side text := request ->> 'side';
    v_quantity numeric := (request ->> 'quantity')::numeric;
    v_terms order_terms;
    v_position positions;
    v_reducing boolean := false;
    v_open boolean;
    v_fill order_fill;
    v_exposure record;
    v_refusal jsonb;
BEGIN
    IF request ->> 'order_type' IS DISTINCT FROM 'market' THEN
        PERFORM refuse_value('order_type', request ->> 'order_type', 'market for an instrument of another venue');
    END IF;
    PERFORM check_price_given(request, 'conditions', false);
    v_terms := terms_of_order(request, p_account);
    v_position := position_left(p_account, v_terms.symbol, v_side);
    v_reducing := coalesce(
        v_position.side = CASE v_side WHEN 'buy' THEN 'short' ELSE 'long' END AND v_quantity <= v_position.quantity,
        false
    );
    v_open := market_is_open(v_terms.calendar, p_at);
    v_refusal := coalesce(
        eligibility_refusal(p_account, v_terms, v_reducing, v_open, p_at),
        CASE WHEN v_position.side = CASE v_side WHEN 'buy' THEN 'short' ELSE 'long' END
            -- A venue fills what it is sent, when it will: what it closes and what it opens are two orders.
            THEN larger_refusal(v_side, v_quantity, v_position.quantity)
            ELSE position_refusal(
                p_account, v_side, v_quantity, 0, coalesce((request ->> 'reduce_only')::boolean, false)
            )
        END
    );
    IF v_refusal IS NOT NULL THEN
        RETURN book_denied_order(request, p_account, v_terms, v_refusal, p_at);
    END IF;

    IF NOT quote_is_fresh(v_terms, p_at) THEN
        PERFORM refuse_stale_quote(v_terms.symbol);
    END IF;
    v_fill := price_order(
        v_terms, v_side, v_quantity, p_account.id || ':' || (request ->> 'idempotency_key'), NOT v_open
    );
    IF v_fill.slippage > (request ->> 'max_slippage')::numeric THEN
        RETURN book_denied_order(request, p_account, v_terms, slippage_refusal(request, v_fill), p_at);
    END IF;
    IF request ?| ARRAY['stop_loss', 'take_profit'] THEN
        PERFORM check_exit_prices(request, v_terms, v_fill.price, v_reducing);
    END IF;
    v_fill.commission := charged_commission(p_account, v_terms, v_quantity, p_at);
    IF NOT v_reducing THEN
        v_fill.margin := order_margin(p_account, v_terms, v_quantity, v_fill.price, p_at);
        v_fill.unrealized_pnl := opening_pnl(p_account, v_terms, v_side, v_quantity, v_fill.price, p_at);
        SELECT * INTO v_exposure
        FROM judge_routed_exposure(
            p_account, v_terms, v_fill, new_limit_case(request, v_position, v_quantity, v_quantity, v_fill.price), p_at
        );
        IF v_exposure.refusal IS NOT NULL THEN
            RETURN book_denied_order(request, p_account, v_terms, v_exposure.refusal, p_at);
        END IF;
        RETURN book_accepted_order(
            request, p_account, v_terms, p_venue, v_fill, v_exposure.required, v_exposure.free_margin, NULL, p_at
        );
    END IF;
    RETURN book_accepted_order(request, p_account, v_terms, p_venue, v_fill, 0, NULL, NULL, p_at);
END
$$;

-- The netting position of a symbol, locked, less what orders in flight take from it.
CREATE OR REPLACE FUNCTION position_left(p_account accounts, p_symbol text, p_side text) RETURNS positions
LANGUAGE plpgsql AS $$
DECLARE
    v_position positions;
BEGIN
    IF p_account.position_mode <> 'netting' THEN
        RETURN NULL;
    END IF;
    SELECT * INTO v_position FROM positions AS p
    WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open' AND p.symbol = p_symbol
    FOR NO KEY UPDATE;
    v_position.quantity := quantity_left(p_account, v_position, p_side);
    RETURN v_position;
END
$$;

-- The lots of a netting position, less what orders in flight on p_side may take from it before one that is sent now
-- does. No quantity left is a position of nothing: an order against it would turn the position round.
CREATE OR REPLACE FUNCTION quantity_left(p_account accounts, p_position positions, p_side text) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF held_against(p_position, p_side) = 0 THEN
        RETURN p_position.quantity;
    END IF;
    RETURN greatest(0, p_position.quantity - (
        SELECT coalesce(sum(o.quantity - o.filled_quantity), 0)
        FROM venue_routes AS r
        INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
        WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done'
            AND o.symbol = p_position.symbol AND o.side = p_side
    ));
END
$$;

-- Whether an order that adds exposure may go out: limits and margin, with every order in flight counted as if it had
-- filled. required and free_margin (what would be left) are in account currency.
CREATE OR REPLACE FUNCTION judge_routed_exposure(
    p_account accounts, p_terms order_terms, p_fill order_fill, p_case limit_case, p_at timestamptz,
    OUT refusal jsonb, OUT required numeric, OUT free_margin numeric
)
LANGUAGE plpgsql AS $$
DECLARE
    v_worth record;
BEGIN
    SELECT * INTO v_worth FROM account_valuation(p_account.user_id, p_account.id, p_at);
    IF v_worth.stale IS NOT NULL THEN
        PERFORM refuse_stale_quote(v_worth.stale);
    END IF;
    p_case.open_positions := v_worth.open_positions;
    p_case.equity := v_worth.equity;
    p_fill.hedged_margin_credit := CASE
        WHEN CASE p_case.side WHEN 'buy' THEN v_worth.coverable_shorts ELSE v_worth.coverable_longs END
            THEN credit_behind(p_account, p_terms, p_case.side, p_case.added, p_fill.margin)
        ELSE 0
    END;
    IF p_terms.max_drawdown_percent IS NOT NULL THEN
        PERFORM raise_peak_equity(p_account, p_case.equity);
    END IF;
    refusal := coalesce(
        limit_refusal(p_account, p_terms, p_case, p_at),
        margin_refusal(p_account, p_fill, v_worth.free_margin, v_worth.margin_used, v_worth.margin_level)
    );
    required := p_fill.margin - p_fill.hedged_margin_credit + p_fill.commission - p_fill.unrealized_pnl;
    free_margin := v_worth.free_margin - p_account.margin_reserved - required;
    required := greatest(0, round_money(required, p_account.currency));
END
$$;

-- The lots that orders in flight to a venue open on p_side before one that is sent now does.
CREATE OR REPLACE FUNCTION lots_ahead(p_account accounts, p_symbol text, p_side text) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(sum(o.quantity - o.filled_quantity), 0)
        FROM venue_routes AS r
        INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
        WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done' AND r.adds_exposure
            AND o.symbol = p_symbol AND o.side = p_side
    );
END
$$;

-- By how much the credit grows with p_quantity lots, once those that are in flight on that side have filled.
CREATE OR REPLACE FUNCTION credit_behind(
    p_account accounts, p_terms order_terms, p_side text, p_quantity numeric, p_margin numeric
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_before CONSTANT numeric := lots_ahead(p_account, p_terms.symbol, p_side);
BEGIN
    RETURN margin_credit_change(
        p_account, p_terms, p_side, v_before + p_quantity, p_margin * (v_before + p_quantity) / p_quantity
    ) - margin_credit_change(p_account, p_terms, p_side, v_before, p_margin * v_before / p_quantity);
END
$$;

-- Order, route, audit, event and stored answer of an accepted order. p_required is reserved until the order is settled.
-- p_closes is the position that it is to close, NULL where it goes by the symbol. A notice is as of book_filled_order.
CREATE OR REPLACE FUNCTION book_accepted_order(
    request jsonb, p_account accounts, p_terms order_terms, p_venue text, p_fill order_fill, p_required numeric,
    p_free_margin numeric, p_closes uuid, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := priced_order(request, p_account, p_at);
    v_reference numeric := CASE v_order.side WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END;
    v_head bytea;
    v_answer jsonb;
BEGIN
    v_order.status := 'pending_new';
    v_order.leaves_quantity := v_order.quantity;
    PERFORM insert_priced_order(v_order);
    INSERT INTO venue_routes (
        user_id, order_id, account_id, venue, closes_position_id, reference_price, worst_price, adds_exposure,
        margin_required, margin_reserved, due_at, created_at, updated_at
    ) VALUES (
        p_account.user_id, v_order.id, p_account.id, p_venue, p_closes, v_reference,
        CASE WHEN v_order.max_slippage IS NOT NULL THEN greatest(p_terms.tick_size, v_reference + CASE v_order.side
            WHEN 'buy' THEN v_order.max_slippage ELSE -v_order.max_slippage
        END) END,
        p_fill.margin IS NOT NULL, p_required, p_required, p_at, p_at, p_at
    );
    v_head := append_audit(p_account, v_order.id, ARRAY[
        ROW(
            'SUBMITTED', 'pending_new', submitted_details(request), request #>> '{notice,reason}', NULL
        )::audit_entry,
        ROW('APPROVED', 'pending_new', jsonb_build_object(
            'venue', p_venue, 'margin', p_fill.margin, 'commission', p_fill.commission,
            'reduces', p_fill.margin IS NULL, 'reserved', p_required, 'free_margin_after', p_free_margin,
            'bid', p_terms.bid, 'ask', p_terms.ask, 'source', p_terms.source, 'quoted_at', utc_text(p_terms.quoted_at)
        ), NULL, NULL)::audit_entry
    ], p_at, request);
    UPDATE accounts SET
        margin_reserved = margin_reserved + p_required,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 2,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, coalesce(request #>> '{notice,event_type}', 'order.pending_new'),
        jsonb_build_object(
            'orders', jsonb_build_array(routed_order_fact(v_order)) || coalesce(request #> '{notice,orders}', '[]')
        ) || CASE WHEN request #> '{notice,risk}' IS NOT NULL
            THEN jsonb_build_object('risk', request #> '{notice,risk}') ELSE '{}'
        END, v_order.request_id, p_at
    );
    v_answer := order_fact(v_order) || jsonb_build_object(
        'outcome', v_order.status, 'account_id', p_account.id, 'venue', p_venue,
        'created_at', utc_text(v_order.created_at), 'sequence', p_account.last_sequence + 1,
        'transact_time', utc_text(p_at)
    );
    PERFORM keep_answer(
        p_account, v_order.idempotency_key, request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, p_at
    );
    RETURN v_answer;
END
$$;

-- The order as the events of its way through a venue tell it, with its present state alone.
CREATE OR REPLACE FUNCTION routed_order_fact(p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (order_facts(p_order) -> 0) || jsonb_build_object(
        'limit_price', p_order.limit_price, 'stop_price', p_order.stop_price, 'status', p_order.status, 'filled_quantity', p_order.filled_quantity, 'average_price', p_order.average_price,
        'executed_at', utc_text(p_order.executed_at), 'failure_code', p_order.failure_code,
        'failure_reason', p_order.failure_reason
    ) || particular_fact(p_order);
END
$$;

GRANT EXECUTE ON FUNCTION accept_order(jsonb) TO function_trader;
-- What judges an order judges its preview.
GRANT EXECUTE ON FUNCTION quantity_left(accounts, positions, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION lots_ahead(accounts, text, text) TO trading_readers;
