SET LOCAL ROLE trading_procedures;

-- Places an order that waits for a price, in one call and one transaction; returns the stored answer of its key.
--
-- request as of execute_order_atomic, but order_type 'limit', 'stop', 'stop_limit', 'market_if_touched' or
--   'limit_if_touched' with limit_price? and stop_price? as its type has them, or 'trailing_stop' or
--   'trailing_stop_limit' with trail_amount or trail_percent, and limit_offset; time_in_force 'day', 'gtc', 'gtd' with
--   expires_at, and for a limit also 'ioc' or 'fok'; 'market' and 'limit' with 'opg' or 'cls'; display_quantity?,
--   display_variance? and post_only? of a limit that rests; conditions? [{symbol, watch: 'bid' | 'ask', direction:
--   'at_or_above' | 'at_or_below', level}], also of 'market', which then takes 'day', 'gtc' or 'gtd'
-- -> {replayed, answer: {outcome: 'new' | 'triggered' | 'partially_filled' | 'filled' | 'canceled' | 'rejected' |
--   'denied', order_id, ...}}, the answer as book_order_state, settled_answer and book_denied_order make it.
-- The margin at its own price must be free now. Nothing of it is reserved: it is checked again when a price touches it.
-- One that the quote of now touches is filled in the same call, as far as the quote's depth goes. One with conditions
-- is held until all of them are met; those that the quotes of now meet are met in the same call.
-- Raises what execute_order_atomic raises; TR004 only where a quote is needed: for the side of a stop, for margin, and
-- for what may not rest.
CREATE OR REPLACE FUNCTION place_order(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_begun record;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(
        request, resolve_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid)
    );
    IF v_begun.answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_begun.answer);
    END IF;
    RETURN jsonb_build_object(
        'replayed', false, 'answer', place_resting_order(
            as_a_caller_may_say(request), v_begun.account, clock_timestamp()
        )
    );
END
$$;

-- The order under its account's lock, at p_at: judged, then booked.
CREATE OR REPLACE FUNCTION place_resting_order(request jsonb, p_account accounts, p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_terms order_terms;
    v_judged record;
BEGIN
    PERFORM check_resting_form(request, p_at);
    v_terms := terms_of_order(request, p_account);
    v_judged := judge_resting_order(request, p_account, v_terms, p_at);
    IF v_terms.max_drawdown_percent IS NOT NULL THEN
        PERFORM raise_peak_equity(p_account, v_judged.equity);
    END IF;
    IF v_judged.refusal IS NOT NULL THEN
        RETURN book_denied_order(request, p_account, v_terms, v_judged.refusal, p_at);
    END IF;
    RETURN book_resting_order(request, p_account, v_terms, v_judged.fill, p_at);
END
$$;

DROP FUNCTION IF EXISTS judge_resting_order(jsonb, accounts, order_terms, timestamptz);
-- The order as if it were executed at its own price: why it is denied, else price, commission and margin (NULL when it
-- only reduces) of that fill; equity as of judge_opening, NULL where that is not asked. Reads only.
CREATE FUNCTION judge_resting_order(
    request jsonb, p_account accounts, p_terms order_terms, p_at timestamptz, OUT fill order_fill, OUT refusal jsonb,
    OUT equity numeric
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_side text := request ->> 'side';
    v_rests boolean := request ->> 'time_in_force' NOT IN ('ioc', 'fok');
    v_position positions := netting_position(p_account, p_terms.symbol);
    v_held numeric := held_against(v_position, v_side);
    v_quantity numeric := quantity_to_fill(request, v_held);
    v_reducing boolean := v_held >= v_quantity;
BEGIN
    PERFORM check_resting_prices(request, p_terms);
    PERFORM check_display(request, p_terms);
    refusal := coalesce(
        CASE WHEN v_rests THEN waiting_refusal(p_account, p_terms, v_reducing, p_at)
            ELSE eligibility_refusal(
                p_account, p_terms, v_reducing, market_is_open(p_terms.calendar, p_at), p_at
            )
        END,
        position_refusal(
            p_account, v_side, v_quantity, v_held, coalesce((request ->> 'reduce_only')::boolean, false)
        ),
        CASE WHEN v_rests THEN working_orders_refusal(
            -- What takes the place of another one adds none.
            p_account, p_terms, CASE WHEN request ? 'replaces_order_id' THEN 0 ELSE 1 END
        ) END
    );
    IF refusal IS NOT NULL THEN
        RETURN;
    END IF;

    PERFORM check_stop_side(request, p_terms, p_at);
    PERFORM check_post_only(request, p_terms, p_at);
    PERFORM check_timed(request, p_terms, p_at);
    PERFORM check_unpriced(request, p_terms, p_at);
    IF NOT v_rests AND NOT quote_is_fresh(p_terms, p_at) THEN
        PERFORM refuse_stale_quote(p_terms.symbol);
    END IF;
    fill.price := resting_price(request, p_terms);
    IF request ?| ARRAY['stop_loss', 'take_profit'] THEN
        PERFORM check_exit_prices(request, p_terms, fill.price, v_reducing);
    END IF;
    fill.commission := charged_commission(p_account, p_terms, v_quantity, p_at);
    IF NOT v_reducing THEN
        fill.margin := order_margin(p_account, p_terms, v_quantity - v_held, fill.price, p_at);
        SELECT j.refusal, j.equity INTO refusal, equity
        FROM judge_exposure(
            p_account, p_terms, new_limit_case(request, v_position, v_quantity, v_quantity - v_held, fill.price), fill,
            v_position, p_at
        ) AS j;
    END IF;
END
$$;

-- The one open position of a symbol in a netting account, all NULL without one and in a hedging account.
CREATE OR REPLACE FUNCTION netting_position(p_account accounts, p_symbol text) RETURNS positions
LANGUAGE sql STABLE AS $$
    SELECT p.*
    FROM positions AS p
    WHERE p_account.position_mode = 'netting' AND p.user_id = p_account.user_id AND p.account_id = p_account.id
        AND p.status = 'open' AND p.symbol = p_symbol
$$;

-- Behind the API's own check: the types that wait for a price, the prices of each, and how long each may wait.
CREATE OR REPLACE FUNCTION check_resting_form(request jsonb, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_type text := request ->> 'order_type';
    v_time text := request ->> 'time_in_force';
BEGIN
    IF v_type IS NULL OR v_type NOT IN (
        'limit', 'stop', 'stop_limit', 'market_if_touched', 'limit_if_touched', 'trailing_stop', 'trailing_stop_limit'
    ) AND NOT (v_type = 'market' AND (is_timed(v_time) OR request ? 'conditions')) THEN
        PERFORM refuse_value('order_type', v_type, 'a type that waits for its price');
    END IF;
    IF v_time IS NULL OR v_time NOT IN ('day', 'gtc', 'gtd')
        AND NOT (v_type = 'limit' AND v_time IN ('ioc', 'fok')) AND NOT (v_type IN ('market', 'limit') AND is_timed(v_time)) THEN
        PERFORM refuse_value('time_in_force', v_time, 'day, gtc or gtd, and of a limit order also ioc, fok, opg or cls');
    END IF;
    IF (request ->> 'expires_at' IS NOT NULL) <> (v_time = 'gtd') THEN
        PERFORM refuse_value('expires_at', request ->> 'expires_at', CASE v_time
            WHEN 'gtd' THEN 'a time to come' ELSE 'left out' END);
    END IF;
    PERFORM check_expiry(request, p_at);
    PERFORM check_price_given(request, 'limit_price', v_type IN ('limit', 'stop_limit', 'limit_if_touched'));
    PERFORM check_price_given(request, 'stop_price', v_type NOT IN ('market', 'limit') AND NOT is_trailing(v_type));
    PERFORM check_trail_form(request);
    IF request ? 'conditions' THEN
        PERFORM check_conditions(request);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION check_expiry(request jsonb, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (request ->> 'expires_at')::timestamptz <= p_at THEN
        PERFORM refuse_value('expires_at', request ->> 'expires_at', 'a time to come');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION check_price_given(request jsonb, p_field text, p_wanted boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (request ->> p_field IS NOT NULL) <> p_wanted THEN
        PERFORM refuse_value(
            p_field, request ->> p_field,
            CASE WHEN p_wanted THEN 'given for a ' ELSE 'left out of a ' END
                || replace(request ->> 'order_type', '_', ' ') || ' order'
        );
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION check_resting_prices(request jsonb, p_terms order_terms) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_field text;
    v_price numeric;
BEGIN
    FOREACH v_field IN ARRAY ARRAY['limit_price', 'stop_price'] LOOP
        v_price := (request ->> v_field)::numeric;
        IF v_price <= 0 OR v_price % p_terms.tick_size <> 0 THEN
            PERFORM refuse_value(v_field, request ->> v_field, 'a positive multiple of ' || p_terms.tick_size);
        END IF;
    END LOOP;
END
$$;

-- A stop waits for the market to come to it: a buy above the ask, a sell below the bid. While the market is closed the
-- session's last quote says where that is. A stop that trails begins at that quote. Where the market will be when
-- conditions are met nobody knows.
CREATE OR REPLACE FUNCTION check_stop_side(request jsonb, p_terms order_terms, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_stop numeric := (request ->> 'stop_price')::numeric;
BEGIN
    IF is_trailing(request ->> 'order_type') THEN
        PERFORM check_trail(request, p_terms, p_at);
    END IF;
    IF v_stop IS NULL OR request ->> 'order_type' NOT IN ('stop', 'stop_limit')
        OR awaits_conditions(request -> 'conditions') THEN
        RETURN;
    END IF;
    IF quote_is_stale(p_terms.quoted_at, p_terms.received_at, p_terms.quote_age_ms_max, p_terms.calendar, p_at) THEN
        PERFORM refuse_stale_quote(p_terms.symbol);
    END IF;
    IF request ->> 'side' = 'buy' AND v_stop <= p_terms.ask THEN
        PERFORM refuse_value('stop_price', request ->> 'stop_price', 'above the ask ' || p_terms.ask);
    ELSIF request ->> 'side' = 'sell' AND v_stop >= p_terms.bid THEN
        PERFORM refuse_value('stop_price', request ->> 'stop_price', 'below the bid ' || p_terms.bid);
    END IF;
END
$$;

-- Binds every order that rests, also one that only reduces: it bounds what each tick has to look at. p_new of them come
-- at once.
CREATE OR REPLACE FUNCTION working_orders_refusal(
    p_account accounts, p_terms order_terms, p_new bigint
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_limit integer := p_terms.max_working_orders;
    v_working bigint;
BEGIN
    IF v_limit IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT count(*) + p_new INTO v_working FROM orders AS o
    WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
        AND o.status IN ('pending_new', 'new', 'triggered', 'partially_filled');
    IF v_working <= v_limit THEN
        RETURN NULL;
    END IF;
    RETURN limit_violation(
        'max_working_orders', v_working, v_limit,
        CASE WHEN p_new > 1 THEN 'working orders; cancel some first' ELSE 'working orders; cancel one first' END
    );
END
$$;

-- The limits and the margin of what p_case adds to the exposure or opens, p_fill at its own price; equity as of
-- judge_opening. p_position: what the account holds in the symbol, all NULL without.
CREATE OR REPLACE FUNCTION judge_exposure(
    p_account accounts, p_terms order_terms, p_case limit_case, p_fill order_fill, p_position positions,
    p_at timestamptz, OUT refusal jsonb, OUT equity numeric
)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- There is no quote of that moment to mark it at.
    p_fill.unrealized_pnl := 0;
    SELECT j.refusal, j.equity INTO refusal, equity
    FROM judge_opening(p_account, p_terms, p_case, p_fill, p_position, p_at) AS j;
END
$$;

-- What judges an order judges its preview.
GRANT EXECUTE ON FUNCTION judge_resting_order(jsonb, accounts, order_terms, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION place_order(jsonb) TO function_trader;
