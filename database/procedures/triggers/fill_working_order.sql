SET LOCAL ROLE trading_procedures;

-- A working order at a quote that touches it: triggered, judged like a new one, filled as far as the quote's depth
-- goes, or ended with its reason. The caller holds the account's lock; p_terms carries the quote.

-- An order with a limit is triggered first, and filled at once only where the same quote touches its limit too.
-- Returns the order as it is then.
CREATE OR REPLACE FUNCTION act_on_touch(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := keep_trailing_level(p_order);
    v_account accounts := p_account;
BEGIN
    IF v_order.active_at IS NOT NULL THEN
        RETURN act_at_its_time(request, p_account, v_order, p_terms, p_at);
    END IF;
    IF v_order.status = 'new' AND v_order.order_type IN ('stop_limit', 'limit_if_touched', 'trailing_stop_limit') THEN
        v_order := trigger_order(request, v_account, v_order, p_terms, p_at);
        v_account := account_under_lock(v_account);
        IF NOT touches(v_order.trigger_watch, v_order.trigger_price, p_terms.bid, p_terms.ask) THEN
            RETURN v_order;
        END IF;
    END IF;
    RETURN fill_working_order(request, v_account, v_order, p_terms, p_at);
END
$$;

-- From here on it waits for its limit.
CREATE OR REPLACE FUNCTION trigger_order(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_trail jsonb := trail_details(p_order);
    v_order orders;
BEGIN
    UPDATE orders AS o SET
        status = 'triggered',
        trigger_watch = watch_of(o.order_type, o.side, 'triggered'),
        trigger_price = o.limit_price,
        triggered_at = p_at,
        version = o.version + 1,
        updated_at = p_at
    WHERE o.user_id = p_order.user_id AND o.id = p_order.id
    RETURNING o.* INTO STRICT v_order;
    PERFORM book_order_state(unkept(request), p_account, v_order, ARRAY[
        ROW('TRIGGERED', v_order.status, quote_details(p_terms) || jsonb_build_object(
            'stop_price', v_order.stop_price
        ) || v_trail, NULL, NULL)::audit_entry
    ], p_at);
    RETURN v_order;
END
$$;

-- The account's row as this transaction has left it; its lock is held.
CREATE OR REPLACE FUNCTION account_under_lock(p_account accounts) RETURNS accounts
LANGUAGE sql STABLE AS $$
    SELECT a FROM accounts AS a WHERE a.user_id = p_account.user_id AND a.id = p_account.id
$$;

-- A request whose answer is kept by a later step, if at all.
CREATE OR REPLACE FUNCTION unkept(request jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT request - 'idempotency_key'
$$;

-- Judged, priced and booked at the quote; ended with its reason where it is refused.
CREATE OR REPLACE FUNCTION fill_working_order(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_position positions := position_of_fill(p_account, p_order);
    v_held numeric := held_against(v_position, p_order.side);
    v_fill order_fill;
    v_refusal jsonb;
    v_equity numeric;
BEGIN
    IF p_order.contingency = 'bracket_exit' AND v_held = 0 THEN
        RETURN forgo_exits(request, p_account, p_order, p_at);
    END IF;
    v_fill := price_working_order(p_account, p_order, p_terms);
    IF p_order.reduce_only THEN
        v_fill.quantity := least(v_fill.quantity, v_held);
    END IF;
    v_refusal := coalesce(
        eligibility_refusal(p_account, p_terms, v_held >= v_fill.quantity, true, p_at),
        position_refusal(
            p_account, p_order.side,
            -- Of what only reduces nothing is left to fill when nothing is held.
            CASE v_fill.quantity WHEN 0 THEN p_order.leaves_quantity ELSE v_fill.quantity END, v_held,
            p_order.reduce_only
        ),
        CASE WHEN v_fill.slippage > p_order.max_slippage THEN slippage_refusal(
            jsonb_build_object('max_slippage', p_order.max_slippage), v_fill
        ) END
    );
    IF v_refusal IS NULL AND v_held < v_fill.quantity THEN
        v_fill := cost_of_opening(p_account, p_order, p_terms, v_fill, v_held, p_at);
        SELECT * INTO v_refusal, v_fill.free_margin, v_equity
        FROM judge_opening(
            p_account, p_terms, working_limit_case(p_order, v_position, v_fill.quantity - v_held, v_fill.price),
            v_fill, v_position, p_at
        );
        IF p_terms.max_drawdown_percent IS NOT NULL THEN
            PERFORM raise_peak_equity(p_account, v_equity);
        END IF;
    END IF;
    IF v_refusal IS NOT NULL THEN
        RETURN end_order(
            request, p_account, p_order, 'rejected', v_refusal ->> 'code', v_refusal ->> 'message', p_at
        );
    END IF;
    RETURN book_working_fill(request, p_account, p_order, p_terms, v_fill, p_at);
END
$$;

-- The price of what one quote gives. With a limit: the quote itself, which is never worse than the limit, as far as its
-- depth goes; without one the whole, with slippage.
CREATE OR REPLACE FUNCTION price_working_order(
    p_account accounts, p_order orders, p_terms order_terms
) RETURNS order_fill
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fill order_fill;
BEGIN
    IF p_order.limit_price IS NOT NULL THEN
        v_fill := price_at_quote(p_terms, p_order.side);
    ELSE
        v_fill := price_order(
            p_terms, p_order.side, workable_quantity(p_order), p_account.id || ':' || p_order.id,
            p_terms.trade_always AND NOT market_is_open(p_terms.calendar, p_terms.quoted_at)
        );
    END IF;
    v_fill.quantity := offered_quantity(p_order, p_terms);
    RETURN v_fill;
END
$$;

-- The touched side of the quote, without slippage.
CREATE OR REPLACE FUNCTION price_at_quote(p_terms order_terms, p_side text) RETURNS order_fill
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fill order_fill;
BEGIN
    v_fill.price := round_to_tick(CASE p_side WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END, p_terms.tick_size);
    v_fill.slippage := 0;
    v_fill.slippage_details := '{"pips": 0}';
    RETURN v_fill;
END
$$;

-- What a fill that adds exposure takes of the free margin, in account currency, once it has closed the p_held that it
-- is against.
CREATE OR REPLACE FUNCTION cost_of_opening(
    p_account accounts, p_order orders, p_terms order_terms, p_fill order_fill, p_held numeric, p_at timestamptz
) RETURNS order_fill
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_opened numeric := p_fill.quantity - p_held;
BEGIN
    p_fill.commission := commission_of_part(p_account, p_order, p_terms, p_fill.quantity, p_at);
    p_fill.margin := order_margin(p_account, p_terms, v_opened, p_fill.price, p_at);
    p_fill.unrealized_pnl := opening_pnl(p_account, p_terms, p_order.side, v_opened, p_fill.price, p_at);
    RETURN p_fill;
END
$$;

DROP FUNCTION IF EXISTS judge_opening(accounts, orders, order_terms, order_fill, boolean, timestamptz);
DROP FUNCTION IF EXISTS judge_opening(accounts, orders, order_terms, order_fill, positions, timestamptz);
DROP FUNCTION IF EXISTS judge_opening(accounts, order_terms, limit_case, order_fill, positions, timestamptz);
-- Limits and margin of what p_case adds, as of a new order; free_margin is what the fill leaves, equity what the
-- account is worth, which is for the caller to keep where it is its highest. p_position: what it meets, all NULL
-- without. Reads only: what judges an order judges its preview.
CREATE FUNCTION judge_opening(
    p_account accounts, p_terms order_terms, p_case limit_case, p_fill order_fill, p_position positions,
    p_at timestamptz, OUT refusal jsonb, OUT free_margin numeric, OUT equity numeric
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_worth record;
BEGIN
    SELECT * INTO v_worth
    FROM worth_before_opening(p_account, p_terms, p_case.side, p_position, p_fill.price, p_at);
    p_case.open_positions := v_worth.open_positions;
    equity := p_account.balance + v_worth.unrealized_pnl;
    p_case.equity := equity;
    p_fill.hedged_margin_credit := CASE
        WHEN v_worth.covers
            THEN margin_credit_change(p_account, p_terms, p_case.side, p_case.added, p_fill.margin)
        ELSE 0
    END;
    refusal := coalesce(
        limit_refusal(p_account, p_terms, p_case, p_at),
        margin_refusal(p_account, p_fill, v_worth.free_margin, v_worth.margin_used, v_worth.margin_level)
    );
    free_margin := v_worth.free_margin - p_account.margin_reserved - p_fill.margin + p_fill.hedged_margin_credit
        - p_fill.commission + p_fill.unrealized_pnl;
END
$$;

-- The fill in the books. What a reduce_only order has over and above the position is canceled.
CREATE OR REPLACE FUNCTION book_working_fill(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_fill order_fill, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_trade record;
    v_order orders;
BEGIN
    SELECT * INTO v_trade FROM write_trade(jsonb_build_object(
        'venue', 'internal', 'trade_id', uuidv7(), 'quantity', p_fill.quantity, 'price', p_fill.price
    ), p_account, p_order, p_terms, p_at, p_at);
    v_order := v_trade.order_after;
    v_order.slippage := greatest(coalesce(p_order.slippage, 0), p_fill.slippage);
    PERFORM finish_trade(request, v_trade.account, v_order, ROW(
        'EXECUTED', p_order.status, quote_details(p_terms) || jsonb_build_object(
            'venue', 'internal', 'trigger_price', p_order.trigger_price, 'slippage', p_fill.slippage_details,
            'slipped', p_fill.slippage, 'reduces', p_fill.margin IS NULL, 'free_margin_after', p_fill.free_margin
        ) || trail_details(p_order), NULL, NULL)::audit_entry || v_trade.entries, v_trade.facts, p_at);
    IF p_order.reduce_only AND v_order.leaves_quantity > 0 AND p_fill.quantity < offered_quantity(p_order, p_terms) THEN
        v_order := forgo_quantity(
            request, account_under_lock(p_account), v_order, workable_quantity(v_order), 'Nothing is left to reduce',
            p_at
        );
    END IF;
    v_order := settle_linked(request, p_account, v_order, p_fill.quantity, p_at);
    IF end_exits_of_trade(request, p_account, v_trade.facts, p_at) THEN
        -- It may have been one of them.
        SELECT * INTO STRICT v_order FROM orders AS o WHERE o.user_id = v_order.user_id AND o.id = v_order.id;
    END IF;
    RETURN v_order;
END
$$;

CREATE OR REPLACE FUNCTION quote_details(p_terms order_terms) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'bid', p_terms.bid, 'ask', p_terms.ask, 'source', p_terms.source, 'quoted_at', utc_text(p_terms.quoted_at)
    );
END
$$;

-- Ends a working order without a fill: row, audit, event. One that is refused with fills already there is canceled.
CREATE OR REPLACE FUNCTION end_order(
    request jsonb, p_account accounts, p_order orders, p_status text, p_code text, p_reason text, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders;
    -- Of what trailed and was touched; it goes with the order.
    v_trail jsonb := CASE WHEN p_order.stop_price IS NULL THEN '{}' ELSE trail_details(p_order) END;
    v_status text := CASE
        WHEN p_status = 'rejected' AND p_order.filled_quantity > 0 THEN 'canceled' ELSE p_status
    END;
BEGIN
    UPDATE orders AS o SET
        status = v_status,
        leaves_quantity = 0,
        held_quantity = 0,
        failure_code = p_code,
        failure_reason = CASE WHEN p_code IS NOT NULL THEN p_reason END,
        version = o.version + 1,
        updated_at = p_at
    WHERE o.user_id = p_order.user_id AND o.id = p_order.id
    RETURNING o.* INTO STRICT v_order;
    PERFORM book_order_state(unkept(request), p_account, v_order, ARRAY[ROW(
        upper(v_status), v_status, jsonb_strip_nulls(jsonb_build_object(
            'code', p_code, 'filled_quantity', v_order.filled_quantity, 'request_id', request ->> 'request_id'
        )) || v_trail, p_reason, NULL
    )::audit_entry], p_at);
    RETURN settle_linked(request, p_account, v_order, 0, p_at);
END
$$;

GRANT EXECUTE ON FUNCTION judge_opening(
    accounts, order_terms, limit_case, order_fill, positions, timestamptz
) TO trading_readers;
