SET LOCAL ROLE trading_procedures;

-- Executes a market order in one call and one transaction; returns the stored answer of its key.
--
-- request {version: 1, user_id, account_id?, idempotency_key, request_hash, idempotency_key_days, symbol, side,
--   order_type: 'market', quantity, time_in_force, stop_loss?, take_profit?, max_slippage?, reduce_only?,
--   client_order_id?, parent_order_id?, strategy_id?, signal_id?, component_name?, metadata?,
--   execution_instructions?, position_size_check?, request_id?, ip_address?, user_agent?, email?}
-- -> {replayed, answer: {outcome: 'filled' | 'canceled' | 'denied', order_id, ...}}, the answer as book_filled_order
--   and book_denied_order make it; as settled_answer does, of one that turned a position round, and of one that was cut
--   to what there was to reduce and whose rest is canceled.
-- Raises TR001 no such account, TR002 unknown symbol, TR003 key reused, TR004 no fresh price, TR005 client_order_id
-- taken, TR006 a value out of its bounds. A raise keeps nothing and leaves the key free.
CREATE OR REPLACE FUNCTION execute_order_atomic(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_account_id uuid;
    v_account accounts;
    v_answer jsonb;
BEGIN
    IF request -> 'version' IS DISTINCT FROM '1' OR request ->> 'idempotency_key' IS NULL THEN
        PERFORM check_request_version(request);
        PERFORM refuse_value('idempotency_key', NULL, 'a key of 1 to 255 characters');
    END IF;
    v_account_id := coalesce((request ->> 'account_id')::uuid, resolve_account(v_user_id, NULL));
    v_answer := replayed_answer(
        v_user_id, v_account_id, request ->> 'idempotency_key', request ->> 'request_hash'
    );
    IF v_answer IS NULL THEN
        -- A statement of its own: what is read after it is read with a snapshot taken after the lock.
        SELECT * INTO v_account FROM accounts WHERE user_id = v_user_id AND id = v_account_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            PERFORM resolve_account(v_user_id, v_account_id);
        END IF;
        -- As lock_account does.
        IF v_account.day_ends_at <= clock_timestamp() THEN
            v_account := open_account_day(v_account, clock_timestamp());
        END IF;
        -- Again, because the racer that held the lock may have used the key.
        v_answer := replayed_answer(
            v_user_id, v_account_id, request ->> 'idempotency_key', request ->> 'request_hash'
        );
    END IF;
    IF v_answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_answer);
    END IF;
    v_answer := execute_market_order(as_a_caller_may_say(request), v_account, clock_timestamp());
    RETURN jsonb_build_object('replayed', false, 'answer', v_answer);
END
$$;

-- The order under its account's lock, at p_at: judged, priced, booked.
CREATE OR REPLACE FUNCTION execute_market_order(request jsonb, p_account accounts, p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_side text := request ->> 'side';
    v_quantity numeric := (request ->> 'quantity')::numeric;
    v_terms order_terms;
    v_position positions;
    -- What of the position the order takes from.
    v_held numeric := 0;
    v_open boolean;
    v_fill order_fill;
    v_refusal jsonb;
BEGIN
    IF request ->> 'order_type' IS DISTINCT FROM 'market' OR request ->> 'time_in_force' IN ('gtd', 'opg', 'cls')
        OR request ? 'conditions' THEN
        PERFORM refuse_unless_market(request);
    END IF;
    v_terms := terms_of_order(request, p_account);
    IF p_account.position_mode = 'netting' THEN
        SELECT * INTO v_position FROM positions AS p
        WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
            AND p.symbol = v_terms.symbol
        FOR NO KEY UPDATE;
        v_held := CASE
            WHEN v_position.side = CASE v_side WHEN 'buy' THEN 'short' ELSE 'long' END THEN v_position.quantity
            ELSE 0
        END;
        -- quantity_to_fill and held_against in line, because they are on the path of every order.
        v_quantity := CASE
            WHEN v_held > 0 AND (request ->> 'reduce_only')::boolean THEN least(v_quantity, v_held) ELSE v_quantity
        END;
    END IF;
    v_open := market_is_open(v_terms.calendar, p_at);
    v_refusal := coalesce(
        eligibility_refusal(p_account, v_terms, v_held >= v_quantity, v_open, p_at),
        CASE p_account.position_mode WHEN 'netting' THEN position_refusal(
            p_account, v_side, v_quantity, v_held, coalesce((request ->> 'reduce_only')::boolean, false)
        ) END
    );
    IF v_refusal IS NOT NULL THEN
        RETURN book_denied_order(request, p_account, v_terms, v_refusal, p_at);
    END IF;

    IF NOT quote_is_fresh(v_terms, p_at) THEN
        PERFORM refuse_stale_quote(v_terms.symbol);
    END IF;
    -- One of a group has no key of its own.
    v_fill := price_order(
        v_terms, v_side, v_quantity, p_account.id || ':' || coalesce(
            request ->> 'idempotency_key', request ->> 'group_key'
        ), NOT v_open
    );
    IF v_fill.slippage > (request ->> 'max_slippage')::numeric THEN
        RETURN book_denied_order(request, p_account, v_terms, slippage_refusal(request, v_fill), p_at);
    END IF;
    IF request ?| ARRAY['stop_loss', 'take_profit'] THEN
        PERFORM check_exit_prices(request, v_terms, v_fill.price, v_held >= v_quantity);
    END IF;
    v_fill.commission := charged_commission(p_account, v_terms, v_quantity, p_at);
    IF v_held > 0 THEN
        RETURN CASE
            WHEN v_held >= (request ->> 'quantity')::numeric
                THEN book_filled_order(request, p_account, v_terms, v_fill, v_position, NULL, p_at)
            WHEN v_held = v_quantity THEN book_cut_order(request, p_account, v_terms, v_fill, v_quantity, p_at)
            ELSE turn_position(request, p_account, v_terms, v_fill, v_position, p_at)
        END;
    END IF;
    RETURN open_at_market(request, p_account, v_terms, v_fill, v_position, p_at);
END
$$;

-- An order that takes from no position: what it would reserve and owe at p_fill, held against the account's worth and
-- limits. p_position: what it adds to, all NULL where it opens one.
CREATE OR REPLACE FUNCTION open_at_market(
    request jsonb, p_account accounts, p_terms order_terms, p_fill order_fill, p_position positions, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_side text := request ->> 'side';
    v_quantity numeric := (request ->> 'quantity')::numeric;
    v_worth record;
    v_case limit_case;
    v_refusal jsonb;
BEGIN
    p_fill.margin := order_margin(p_account, p_terms, v_quantity, p_fill.price, p_at);
    p_fill.unrealized_pnl := opening_pnl(p_account, p_terms, v_side, v_quantity, p_fill.price, p_at);
    SELECT * INTO v_worth FROM account_worth(p_account, p_at);
    IF v_worth.stale IS NOT NULL THEN
        PERFORM refuse_stale_quote(v_worth.stale);
    END IF;
    p_fill.hedged_margin_credit := CASE
        WHEN CASE v_side WHEN 'buy' THEN v_worth.coverable_shorts ELSE v_worth.coverable_longs END
            THEN margin_credit_change(p_account, p_terms, v_side, v_quantity, p_fill.margin)
        ELSE 0
    END;
    IF is_limited(p_terms) THEN
        v_case := new_limit_case(request, p_position, v_quantity, v_quantity, p_fill.price);
        v_case.open_positions := v_worth.open_positions;
        v_case.equity := v_worth.equity;
        IF p_terms.max_drawdown_percent IS NOT NULL THEN
            PERFORM raise_peak_equity(p_account, v_worth.equity);
        END IF;
        v_refusal := limit_refusal(p_account, p_terms, v_case, p_at);
    END IF;
    v_refusal := coalesce(
        v_refusal,
        margin_refusal(p_account, p_fill, v_worth.free_margin, v_worth.margin_used, v_worth.margin_level)
    );
    IF v_refusal IS NOT NULL THEN
        RETURN book_denied_order(request, p_account, p_terms, v_refusal, p_at);
    END IF;
    RETURN book_filled_order(
        request, p_account, p_terms, p_fill, p_position, account_fact(
            p_account, p_account.balance - p_fill.commission, v_worth.unrealized_pnl + p_fill.unrealized_pnl,
            v_worth.margin_used + p_fill.margin - p_fill.hedged_margin_credit,
            v_worth.hedged_margin_credit + p_fill.hedged_margin_credit
        ), p_at
    );
END
$$;

-- Only the platform's own orders carry a notice, only replace_order's take another one's place, and only those of a
-- group come with others.
CREATE OR REPLACE FUNCTION as_a_caller_may_say(request jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT request - ARRAY['notice', 'replaces_order_id', 'group_size', 'exit_stop_price', 'exit_limit_price']
$$;

-- Behind the API's own check: what is filled at once waits for no price and no time.
CREATE OR REPLACE FUNCTION refuse_unless_market(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF request ->> 'order_type' IS DISTINCT FROM 'market' THEN
        PERFORM refuse_value('order_type', request ->> 'order_type', 'market');
    END IF;
    PERFORM check_price_given(request, 'conditions', false);
    PERFORM refuse_value('time_in_force', request ->> 'time_in_force', 'day, gtc, ioc or fok');
END
$$;

-- Instrument, quote, user and limits, with the bounds of the quantity checked once more behind the API's own check.
CREATE OR REPLACE FUNCTION terms_of_order(request jsonb, p_account accounts) RETURNS order_terms
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_terms order_terms;
    v_quantity numeric := (request ->> 'quantity')::numeric;
BEGIN
    IF request ->> 'side' IS NULL OR request ->> 'side' NOT IN ('buy', 'sell') THEN
        PERFORM refuse_value('side', request ->> 'side', 'buy or sell');
    END IF;
    SELECT * INTO v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = request ->> 'symbol';
    IF NOT FOUND THEN
        PERFORM FROM risk_settings AS r WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'Account % has no risk settings, so it cannot trade.', p_account.id;
        END IF;
        RAISE EXCEPTION 'There is no instrument %.', request ->> 'symbol'
        USING ERRCODE = 'TR002', DETAIL = jsonb_build_object(
            'field', 'symbol', 'value', request ->> 'symbol', 'constraint', 'a known symbol'
        )::text;
    END IF;
    IF v_quantity IS NULL OR NOT v_quantity BETWEEN v_terms.quantity_min AND v_terms.quantity_max
        OR v_quantity % v_terms.quantity_step <> 0 THEN
        PERFORM refuse_value('quantity', request ->> 'quantity', format(
            '%s to %s in steps of %s', v_terms.quantity_min, v_terms.quantity_max, v_terms.quantity_step
        ));
    END IF;
    IF p_account.position_mode = 'hedging' AND coalesce((request ->> 'reduce_only')::boolean, false) THEN
        PERFORM refuse_value(
            'reduce_only', 'true', 'left out on a hedging account, where each order opens a position of its own'
        );
    END IF;
    IF request ?| ARRAY['max_slippage', 'parent_order_id', 'client_order_id'] THEN
        PERFORM check_optional_fields(request, p_account);
    END IF;
    RETURN v_terms;
END
$$;

CREATE OR REPLACE FUNCTION check_optional_fields(request jsonb, p_account accounts) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT (request ->> 'max_slippage')::numeric BETWEEN 0 AND 1e18 THEN
        PERFORM refuse_value('max_slippage', request ->> 'max_slippage', 'at least 0');
    END IF;
    IF request ->> 'parent_order_id' IS NOT NULL AND NOT EXISTS (
        SELECT FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.id = (request ->> 'parent_order_id')::uuid
            AND o.account_id = p_account.id
    ) THEN
        PERFORM refuse_value('parent_order_id', request ->> 'parent_order_id', 'an order of the same account');
    END IF;
    IF request ->> 'client_order_id' IS NOT NULL AND EXISTS (
        SELECT FROM client_order_ids AS c
        WHERE c.user_id = p_account.user_id AND c.account_id = p_account.id
            AND c.client_order_id = request ->> 'client_order_id'
    ) THEN
        RAISE EXCEPTION 'client_order_id was used for another order. Send a new one.'
        USING ERRCODE = 'TR005', DETAIL = jsonb_build_object(
            'field', 'client_order_id', 'value', request ->> 'client_order_id', 'constraint', 'unique in the account'
        )::text;
    END IF;
END
$$;

-- The traded symbol's quote must be fresh whether or not its market keeps hours.
CREATE OR REPLACE FUNCTION quote_is_fresh(p_terms order_terms, p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN p_terms.bid IS NOT NULL AND NOT quote_is_ahead(p_terms.quoted_at, p_terms.received_at, p_at)
        AND least(p_terms.quoted_at, p_terms.received_at) >= p_at - p_terms.quote_age_ms_max * interval '1 ms';
END
$$;

CREATE OR REPLACE FUNCTION slippage_refusal(request jsonb, p_fill order_fill) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT refusal(
        'SLIPPAGE_EXCEEDED', format('The price slips by %s; you allow %s. Allow more or reduce the quantity.',
            p_fill.slippage, request ->> 'max_slippage'),
        'max_slippage', request ->> 'max_slippage', 'at least ' || p_fill.slippage
    )
$$;

-- Stop loss and take profit lie on their own sides of the fill price; an order that only reduces takes none.
CREATE OR REPLACE FUNCTION check_exit_prices(
    request jsonb, p_terms order_terms, p_price numeric, p_reducing boolean
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_exit record;
BEGIN
    FOR v_exit IN
        SELECT x.field, x.price, (x.field = 'stop_loss') = (request ->> 'side' = 'buy') AS below
        FROM (VALUES
            ('stop_loss', (request ->> 'stop_loss')::numeric),
            ('take_profit', (request ->> 'take_profit')::numeric)
        ) AS x (field, price)
        WHERE x.price IS NOT NULL
    LOOP
        IF p_reducing THEN
            PERFORM refuse_value(v_exit.field, v_exit.price::text, 'left out of an order that reduces a position');
        END IF;
        IF v_exit.price <= 0 OR v_exit.price % p_terms.tick_size <> 0 THEN
            PERFORM refuse_value(v_exit.field, v_exit.price::text, 'a positive multiple of ' || p_terms.tick_size);
        END IF;
        IF v_exit.below AND v_exit.price >= p_price THEN
            PERFORM refuse_value(v_exit.field, v_exit.price::text, 'below the price of this order, ' || p_price);
        ELSIF NOT v_exit.below AND v_exit.price <= p_price THEN
            PERFORM refuse_value(v_exit.field, v_exit.price::text, 'above the price of this order, ' || p_price);
        END IF;
    END LOOP;
END
$$;

-- The new position marked at the other side of the quote that filled it, in account currency, not rounded.
CREATE OR REPLACE FUNCTION opening_pnl(
    p_account accounts, p_terms order_terms, p_side text, p_quantity numeric, p_price numeric, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_pnl numeric := p_quantity * p_terms.contract_size
        * CASE p_side WHEN 'buy' THEN p_terms.bid - p_price ELSE p_price - p_terms.ask END;
BEGIN
    RETURN convert_amount(v_pnl, p_terms.quote_currency, p_account.currency, p_at);
END
$$;

GRANT EXECUTE ON FUNCTION execute_order_atomic(jsonb) TO function_trader;
