SET LOCAL ROLE trading_procedures;

-- An order that is larger than the position it takes from turns it round: the position closes whole at the fill price,
-- the rest opens one of its own, in one trade of two parts. And one that may only reduce is cut to the position.

-- The account as a fill at p_price finds it before it opens anything: where it is against p_position, with that closed
-- at p_price. In account currency. unrealized_pnl is not reduced: the loss of the day counts what is closed at its
-- mark, as it does while it is held. covers: it may cover something for less. Raises TR004 where what is held, or a
-- rate, has no fresh quote.
DROP FUNCTION IF EXISTS worth_before_opening(accounts, order_terms, text, positions, numeric, timestamptz);
CREATE FUNCTION worth_before_opening(
    p_account accounts, p_terms order_terms, p_side text, p_position positions, p_price numeric, p_at timestamptz,
    OUT open_positions bigint, OUT unrealized_pnl numeric, OUT margin_used numeric, OUT free_margin numeric,
    OUT margin_level numeric, OUT covers boolean
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_worth record;
    v_marked numeric;
BEGIN
    SELECT * INTO v_worth FROM account_valuation(p_account.user_id, p_account.id, p_at);
    IF v_worth.stale IS NOT NULL THEN
        PERFORM refuse_stale_quote(v_worth.stale);
    END IF;
    open_positions := v_worth.open_positions;
    unrealized_pnl := v_worth.unrealized_pnl;
    margin_used := v_worth.margin_used;
    free_margin := v_worth.free_margin;
    margin_level := v_worth.margin_level;
    covers := CASE p_side WHEN 'buy' THEN v_worth.coverable_shorts ELSE v_worth.coverable_longs END;
    IF held_against(p_position, p_side) = 0 THEN
        RETURN;
    END IF;
    SELECT v.unrealized_pnl INTO STRICT v_marked
    FROM valued_positions(p_account.user_id, p_account.id, p_at) AS v
    WHERE v.position_id = p_position.id;
    -- It is all that a netting account holds of the symbol.
    covers := false;
    open_positions := v_worth.open_positions - 1;
    margin_used := v_worth.margin_used - p_position.margin_used;
    free_margin := v_worth.free_margin + p_position.margin_used - v_marked
        + realized_pnl(p_account, p_terms, p_position, p_position.quantity, p_price, p_at);
    margin_level := (free_margin + margin_used) * 100 / nullif(margin_used, 0);
END
$$;

-- A market order that turns p_position round, priced in p_fill: judged by what is free once the position is closed,
-- then booked. Denied as a whole.
CREATE OR REPLACE FUNCTION turn_position(
    request jsonb, p_account accounts, p_terms order_terms, p_fill order_fill, p_position positions, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := priced_order(request, p_account, p_at);
    v_refusal jsonb;
    v_equity numeric;
BEGIN
    p_fill.quantity := v_order.quantity;
    p_fill := cost_of_opening(p_account, v_order, p_terms, p_fill, p_position.quantity, p_at);
    SELECT * INTO v_refusal, p_fill.free_margin, v_equity
    FROM judge_opening(
        p_account, p_terms, new_limit_case(
            request, p_position, v_order.quantity, v_order.quantity - p_position.quantity, p_fill.price
        ), p_fill, p_position, p_at
    );
    IF p_terms.max_drawdown_percent IS NOT NULL THEN
        PERFORM raise_peak_equity(p_account, v_equity);
    END IF;
    IF v_refusal IS NOT NULL THEN
        RETURN book_denied_order(request, p_account, p_terms, v_refusal, p_at);
    END IF;
    v_order := book_market_trade(request, p_account, v_order, p_terms, p_fill, p_at);
    RETURN keep_settled_answer(request, p_account, v_order, p_at);
END
$$;

-- A market order that may only reduce and is larger than the position: p_quantity is filled, the rest canceled.
CREATE OR REPLACE FUNCTION book_cut_order(
    request jsonb, p_account accounts, p_terms order_terms, p_fill order_fill, p_quantity numeric, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := priced_order(request, p_account, p_at);
BEGIN
    p_fill.quantity := p_quantity;
    v_order := book_market_trade(request, p_account, v_order, p_terms, p_fill, p_at);
    v_order := end_order(
        request, account_under_lock(p_account), v_order, 'canceled', NULL, 'Nothing is left to reduce', p_at
    );
    RETURN keep_settled_answer(request, p_account, v_order, p_at);
END
$$;

-- The order, its trade in one part or two, audit and event; the order as it is then.
CREATE OR REPLACE FUNCTION book_market_trade(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_fill order_fill, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
    v_trade record;
BEGIN
    v_order.status := 'pending_new';
    v_order.leaves_quantity := v_order.quantity;
    PERFORM insert_priced_order(v_order);
    SELECT * INTO v_trade FROM write_trade(jsonb_build_object(
        'venue', 'internal', 'trade_id', uuidv7(), 'quantity', p_fill.quantity, 'price', p_fill.price
    ), p_account, v_order, p_terms, p_at, p_at);
    v_order := v_trade.order_after;
    v_order.slippage := p_fill.slippage;
    PERFORM finish_trade(request, v_trade.account, v_order, ARRAY[
        submitted_entry(request),
        ROW('APPROVED', 'pending_new', jsonb_build_object(
            'margin', p_fill.margin, 'commission', p_fill.commission, 'reduces', p_fill.margin IS NULL
        ), NULL, NULL)::audit_entry,
        ROW('EXECUTED', 'pending_new', execution_details(p_terms, p_fill) || jsonb_build_object(
            'free_margin_after', p_fill.free_margin
        ), NULL, NULL)::audit_entry
    ] || v_trade.entries, v_trade.facts || jsonb_build_object('orders', order_facts(v_order)), p_at);
    PERFORM end_exits_of_trade(request, p_account, v_trade.facts, p_at);
    RETURN v_order;
END
$$;

CREATE OR REPLACE FUNCTION keep_settled_answer(
    request jsonb, p_account accounts, p_order orders, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash',
        settled_answer(account_under_lock(p_account), p_order, p_at), (request ->> 'idempotency_key_days')::integer,
        p_at
    );
END
$$;

-- What judges an order judges its preview.
GRANT EXECUTE ON FUNCTION worth_before_opening(
    accounts, order_terms, text, positions, numeric, timestamptz
) TO trading_readers;
