SET LOCAL ROLE trading_readers;

-- Everything by which a new order of an account would be judged and priced, read at one moment; nothing is written.
--
-- p_order {symbol, order_type, side, quantity, stop_price?, trail_amount?, trail_percent?, limit_offset?,
--   limit_price?, stop_loss?, take_profit?, display_quantity?, display_variance?, post_only?, time_in_force?,
--   expires_at?, reduce_only?, client_order_id?, parent_order_id?, max_slippage?, conditions?, replaces_order_id?}
-- -> {account {id, currency, kind, leverage}, terms: a row of order_terms, market_open, fresh: the symbol's quote may
--   be traded on, position: what a netting account holds in the symbol, else null, quantity: what would be filled,
--   reduces: it takes from the position and opens nothing, refusal and limit_refusal: why it would be denied before and
--   after it is priced, else null, worth {balance, unrealized_pnl, margin_used}: at quotes of any age,
--   margin_reserved: for orders in flight to a venue, quotes [{symbol, bid, ask, volatility, fresh}]: of the pairs
--   between the currencies concerned, stale_position: a symbol held whose quote is too old, else null,
--   position_currencies [...]: what its P&L is in, sides: what a hedging account holds of the symbol, as sides_of
--   tells it, else null, lots_ahead: what orders in flight open on its side before it does, where it goes to a venue}
-- Raises TR001 no such account, TR002 unknown symbol, TR004 no price to tell a stop's side by, TR005 client_order_id
-- taken, TR006 a value out of its bounds.
CREATE OR REPLACE FUNCTION preview_facts(p_user_id uuid, p_account_id uuid, p_order jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_side text := p_order ->> 'side';
    v_quantity numeric;
    v_account accounts;
    v_terms order_terms;
    v_position positions;
    -- For a price, a time or conditions; of these all rest but what takes what there is at once.
    v_waits boolean := p_order ->> 'order_type' <> 'market' OR p_order ? 'conditions'
        OR coalesce(is_timed(p_order ->> 'time_in_force'), false);
    v_rests boolean := v_waits AND coalesce(p_order ->> 'time_in_force', 'gtc') NOT IN ('ioc', 'fok');
    -- Another venue neither turns a position round nor cuts an order.
    v_routed boolean;
    v_held numeric;
    v_reduces boolean;
    v_open boolean;
    v_worth record;
    v_case limit_case;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    SELECT * INTO v_account FROM accounts AS a
    WHERE a.user_id = p_user_id AND a.id = resolve_account(p_user_id, p_account_id);
    v_terms := terms_of_order(p_order, v_account);
    IF p_order ? 'conditions' THEN
        PERFORM check_conditions(p_order);
    END IF;
    IF v_waits THEN
        PERFORM check_expiry(p_order, v_at);
        PERFORM check_stop_side(p_order, v_terms, v_at);
        PERFORM check_post_only(p_order, v_terms, v_at);
        PERFORM check_timed(p_order, v_terms, v_at);
        PERFORM check_unpriced(p_order, v_terms, v_at);
    END IF;
    v_position := netting_position(v_account, v_terms.symbol);
    v_routed := NOT v_waits AND v_terms.venue <> 'internal';
    v_held := held_against(v_position, v_side);
    IF v_routed AND v_held > 0 THEN
        v_held := quantity_left(v_account, v_position, v_side);
    END IF;
    v_quantity := CASE
        WHEN v_routed THEN (p_order ->> 'quantity')::numeric ELSE quantity_to_fill(p_order, v_held)
    END;
    v_reduces := v_held >= v_quantity;
    v_open := market_is_open(v_terms.calendar, v_at);
    SELECT * INTO v_worth FROM account_valuation(v_account.user_id, v_account.id);
    -- A market order as if nothing slipped.
    v_case := new_limit_case(p_order, v_position, v_quantity, v_quantity - v_held, resting_price(p_order, v_terms));
    v_case.open_positions := v_worth.open_positions - CASE WHEN v_held > 0 THEN 1 ELSE 0 END;
    v_case.equity := v_worth.equity;
    RETURN jsonb_build_object(
        'account', previewed_account(v_account),
        'terms', to_jsonb(v_terms) - 'email',
        'market_open', v_open,
        -- While the market is closed the session's last price tells what an order would come to.
        'fresh', CASE WHEN v_open OR v_terms.trade_always AND NOT v_rests THEN quote_is_fresh(v_terms, v_at)
            ELSE NOT quote_is_stale(
                v_terms.quoted_at, v_terms.received_at, v_terms.quote_age_ms_max, v_terms.calendar, v_at
            )
        END,
        'position', CASE WHEN v_position.id IS NOT NULL THEN jsonb_build_object(
            'side', v_position.side, 'quantity', v_position.quantity, 'entry_price', v_position.entry_price,
            'margin_used', v_position.margin_used
        ) END,
        'quantity', v_quantity,
        'reduces', v_reduces,
        'refusal', coalesce(
            CASE WHEN v_rests THEN waiting_refusal(v_account, v_terms, v_reduces, v_at)
                ELSE eligibility_refusal(v_account, v_terms, v_reduces, v_open, v_at)
            END,
            -- As accept_order.
            CASE WHEN v_routed AND held_against(v_position, v_side) > 0
                THEN larger_refusal(v_side, (p_order ->> 'quantity')::numeric, v_held)
            END,
            position_refusal(
                v_account, v_side, v_quantity, v_held, coalesce((p_order ->> 'reduce_only')::boolean, false)
            ),
            CASE WHEN v_rests THEN working_orders_refusal(
                v_account, v_terms, CASE WHEN p_order ? 'replaces_order_id' THEN 0 ELSE 1 END
            ) END
        ),
        'limit_refusal', CASE WHEN NOT v_reduces THEN limit_refusal(v_account, v_terms, v_case, v_at) END,
        'worth', jsonb_build_object(
            'balance', v_worth.balance, 'unrealized_pnl', v_worth.unrealized_pnl, 'margin_used', v_worth.margin_used
        ),
        'margin_reserved', v_account.margin_reserved,
        'sides', CASE v_account.position_mode WHEN 'hedging' THEN sides_of(v_account, v_terms.symbol) END,
        'lots_ahead', CASE WHEN v_routed THEN lots_ahead(v_account, v_terms.symbol, v_side) ELSE 0 END
    ) || preview_rates(v_account, ARRAY[v_terms.base_currency, v_terms.quote_currency], v_at);
END
$$;

-- What an account holds of a symbol on either side, as symbol_sides has it, and the percent that hedges of it need;
-- NULL where it holds nothing.
CREATE OR REPLACE FUNCTION sides_of(p_account accounts, p_symbol text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('percent', i.hedged_margin_percent) || to_jsonb(s) - 'symbol'
    FROM symbol_sides(p_account.user_id, p_account.id) AS s
    INNER JOIN instruments AS i USING (symbol)
    WHERE s.symbol = p_symbol
$$;

CREATE OR REPLACE FUNCTION previewed_account(p_account accounts) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', p_account.id, 'currency', p_account.currency, 'kind', p_account.kind, 'leverage', p_account.leverage
    )
$$;

-- The part of preview_facts that conversions take: quotes, stale_position and position_currencies. p_currencies: of
-- what is not held.
CREATE OR REPLACE FUNCTION preview_rates(p_account accounts, p_currencies text[], p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_held text [];
    v_stale text;
    v_currencies text [];
BEGIN
    SELECT
        array_agg(DISTINCT i.quote_currency),
        min(i.symbol) FILTER (
            WHERE quote_is_stale(q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar, p_at)
        )
    INTO v_held, v_stale
    FROM positions AS p
    INNER JOIN instruments AS i USING (symbol)
    LEFT JOIN quotes AS q USING (symbol)
    WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open';
    -- USD is the way between two currencies that are not quoted against each other.
    v_currencies := v_held || ARRAY['USD', p_account.currency] || p_currencies;
    RETURN jsonb_build_object(
        'position_currencies', coalesce(to_jsonb(v_held), '[]'::jsonb),
        'stale_position', v_stale,
        'quotes', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'symbol', q.symbol, 'bid', q.bid, 'ask', q.ask, 'volatility', q.volatility,
                'fresh', NOT quote_is_stale(q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar, p_at)
            )), '[]')
            FROM quotes AS q
            INNER JOIN instruments AS i USING (symbol)
            WHERE q.symbol IN (
                SELECT f.currency || t.currency
                FROM unnest(v_currencies) AS f (currency)
                CROSS JOIN unnest(v_currencies) AS t (currency)
            )
        )
    );
END
$$;

GRANT EXECUTE ON FUNCTION preview_facts(uuid, uuid, jsonb) TO function_trader;

SET LOCAL ROLE trading_procedures;

-- What judges an order judges its preview. They read as whoever calls them: here the rows of app.user_id alone.
GRANT EXECUTE ON FUNCTION terms_of_order(jsonb, accounts) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_optional_fields(jsonb, accounts) TO trading_readers;
GRANT EXECUTE ON FUNCTION netting_position(accounts, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_expiry(jsonb, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_stop_side(jsonb, order_terms, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION working_orders_refusal(accounts, order_terms, bigint) TO trading_readers;
GRANT EXECUTE ON FUNCTION quote_is_fresh(order_terms, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION refusal(text, text, text, text, text, jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION eligibility_refusal(
    accounts, order_terms, boolean, boolean, timestamptz
) TO trading_readers;
GRANT EXECUTE ON FUNCTION position_refusal(accounts, text, numeric, numeric, boolean) TO trading_readers;
GRANT EXECUTE ON FUNCTION larger_refusal(text, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION waiting_refusal(accounts, order_terms, boolean, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION is_halted(accounts, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION held_against(positions, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION quantity_to_fill(jsonb, numeric) TO trading_readers;
