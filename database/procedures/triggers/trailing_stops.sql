SET LOCAL ROLE trading_procedures;

-- Stops that trail the market: a mark that follows the best price since the stop was set (for a sale the highest bid,
-- for a purchase the lowest ask), and a level that follows the mark at the trail's distance.

CREATE OR REPLACE FUNCTION is_trailing(p_order_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_order_type IN ('trailing_stop', 'trailing_stop_limit')
$$;

-- The level of a mark, on the tick. Between two ticks it is the farther one, so that rounding never triggers early.
-- p_percent is of the mark.
CREATE OR REPLACE FUNCTION level_of_mark(
    p_watch text, p_mark numeric, p_amount numeric, p_percent numeric, p_tick numeric
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_watch
        WHEN 'bid_falls' THEN floor((p_mark - coalesce(p_amount, p_mark * p_percent * 0.01)) / p_tick) * p_tick
        ELSE ceil((p_mark + coalesce(p_amount, p_mark * p_percent * 0.01)) / p_tick) * p_tick
    END
$$;

-- The limit that an order has once it is triggered at p_level; NULL of one without.
CREATE OR REPLACE FUNCTION limit_of_level(p_watch text, p_level numeric, p_offset numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_watch WHEN 'bid_falls' THEN p_level - p_offset ELSE p_level + p_offset END
$$;

-- The level that a trailing order would have now.
CREATE OR REPLACE FUNCTION level_of_request(request jsonb, p_terms order_terms) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN level_of_mark(
        watch_of(request ->> 'order_type', request ->> 'side', 'new'),
        CASE request ->> 'side' WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END,
        (request ->> 'trail_amount')::numeric, (request ->> 'trail_percent')::numeric, p_terms.tick_size
    );
END
$$;

-- The price at which an order that rests is judged: its own, or what the quote of now makes of one without.
CREATE OR REPLACE FUNCTION resting_price(request jsonb, p_terms order_terms) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_level numeric;
BEGIN
    IF request ->> 'order_type' = 'market' THEN
        RETURN round_to_tick(CASE request ->> 'side' WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END, p_terms.tick_size);
    ELSIF NOT is_trailing(request ->> 'order_type') THEN
        RETURN coalesce(request ->> 'limit_price', request ->> 'stop_price')::numeric;
    END IF;
    v_level := level_of_request(request, p_terms);
    RETURN coalesce(limit_of_level(
        watch_of(request ->> 'order_type', request ->> 'side', 'new'), v_level, (request ->> 'limit_offset')::numeric
    ), v_level);
END
$$;

-- Behind the API's own check: what a trailing order has in place of prices, and no other order.
CREATE OR REPLACE FUNCTION check_trail_form(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_trails boolean := is_trailing(request ->> 'order_type');
    v_field text;
BEGIN
    PERFORM check_price_given(request, 'limit_offset', request ->> 'order_type' = 'trailing_stop_limit');
    PERFORM check_price_given(
        request, 'trail_amount', v_trails AND request ->> 'trail_percent' IS NULL
    );
    IF NOT v_trails THEN
        PERFORM check_price_given(request, 'trail_percent', false);
        RETURN;
    END IF;
    -- Where it will be filled nobody knows yet, so nothing can be set to one side of that.
    FOREACH v_field IN ARRAY ARRAY['stop_loss', 'take_profit'] LOOP
        PERFORM check_price_given(request, v_field, false);
    END LOOP;
END
$$;

-- The trail of a request against the instrument and the quote that it begins at. While the market is closed that is
-- the session's last.
CREATE OR REPLACE FUNCTION check_trail(request jsonb, p_terms order_terms, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_amount numeric := (request ->> 'trail_amount')::numeric;
    v_offset numeric := (request ->> 'limit_offset')::numeric;
BEGIN
    IF v_amount <= 0 OR v_amount % p_terms.tick_size <> 0 THEN
        PERFORM refuse_value('trail_amount', v_amount::text, 'a positive multiple of ' || p_terms.tick_size);
    END IF;
    IF (request ->> 'trail_percent')::numeric <= 0 OR (request ->> 'trail_percent')::numeric >= 100 THEN
        PERFORM refuse_value('trail_percent', request ->> 'trail_percent', 'above 0 and below 100');
    END IF;
    IF v_offset < 0 OR v_offset % p_terms.tick_size <> 0 THEN
        PERFORM refuse_value('limit_offset', v_offset::text, 'a multiple of ' || p_terms.tick_size);
    END IF;
    IF quote_is_stale(p_terms.quoted_at, p_terms.received_at, p_terms.quote_age_ms_max, p_terms.calendar, p_at) THEN
        PERFORM refuse_stale_quote(p_terms.symbol);
    END IF;
    IF level_of_request(request, p_terms) <= 0 THEN
        PERFORM refuse_value(
            CASE WHEN v_amount IS NULL THEN 'trail_percent' ELSE 'trail_amount' END,
            coalesce(request ->> 'trail_amount', request ->> 'trail_percent'), 'less than the bid ' || p_terms.bid
        );
    ELSIF resting_price(request, p_terms) <= 0 THEN
        PERFORM refuse_value('limit_offset', v_offset::text, 'less than the level ' || level_of_request(request, p_terms));
    END IF;
END
$$;

-- A new trailing order begins at the quote of now.
CREATE OR REPLACE FUNCTION begin_trailing(p_order orders, p_terms order_terms) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_mark numeric := CASE p_order.side WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END;
BEGIN
    INSERT INTO trailing_levels (
        user_id, subject_id, account_id, kind, symbol, watch, trail_amount, trail_percent, mark, level
    )
    VALUES (
        p_order.user_id, p_order.id, p_order.account_id, 'order', p_order.symbol, p_order.trigger_watch,
        p_order.trail_amount, p_order.trail_percent, v_mark, level_of_mark(
            p_order.trigger_watch, v_mark, p_order.trail_amount, p_order.trail_percent, p_terms.tick_size
        )
    );
END
$$;

-- Moves the marks of p_symbols that the newest quotes beat, and their levels with them; how many. What is queued stands
-- still: it triggers at the level that was touched. It waits for nobody: a row that is locked belongs to an order or a
-- position that is ending. A quote that is too old, or of a closed market, moves nothing.
-- Planned by key: the planner takes what is beaten for many rows, and would read all that trail.
CREATE OR REPLACE FUNCTION move_trailing_levels(p_symbols text[], p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_moved bigint;
BEGIN
    WITH live AS MATERIALIZED (
        SELECT q.symbol, q.bid, q.ask, i.tick_size
        FROM quotes AS q
        INNER JOIN instruments AS i USING (symbol)
        WHERE q.symbol = ANY (p_symbols)
            AND least(q.quoted_at, q.received_at) >= p_at - i.quote_age_ms_max * interval '1 ms'
            AND ((SELECT s.trade_always FROM platform_settings AS s) OR market_is_open(i.calendar, p_at))
    ), sold AS MATERIALIZED (
        SELECT l.user_id, l.subject_id, v.bid AS mark, v.tick_size
        FROM live AS v
        INNER JOIN trailing_levels AS l ON l.symbol = v.symbol AND l.watch = 'bid_falls' AND l.mark < v.bid
        FOR NO KEY UPDATE OF l SKIP LOCKED
    ), bought AS MATERIALIZED (
        SELECT l.user_id, l.subject_id, v.ask AS mark, v.tick_size
        FROM live AS v
        INNER JOIN trailing_levels AS l ON l.symbol = v.symbol AND l.watch = 'ask_rises' AND l.mark > v.ask
        FOR NO KEY UPDATE OF l SKIP LOCKED
    )
    UPDATE trailing_levels AS t SET
        mark = b.mark,
        level = level_of_mark(t.watch, b.mark, t.trail_amount, t.trail_percent, b.tick_size)
    FROM (SELECT * FROM sold UNION ALL SELECT * FROM bought) AS b
    WHERE t.user_id = b.user_id AND t.subject_id = b.subject_id
        AND NOT EXISTS (SELECT FROM trigger_queue AS w WHERE w.user_id = b.user_id AND w.subject_id = b.subject_id);
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    RETURN v_moved;
END
$$;

-- Where the stop of an order or a position stands; all NULL of one that does not trail.
CREATE OR REPLACE FUNCTION trailing_level(p_user_id uuid, p_subject_id uuid) RETURNS trailing_levels
LANGUAGE sql STABLE AS $$
    SELECT l FROM trailing_levels AS l WHERE l.user_id = p_user_id AND l.subject_id = p_subject_id
$$;

-- The order with the level at which it trails as its trigger; any other as it is.
CREATE OR REPLACE FUNCTION at_trailing_level(p_order orders) RETURNS orders
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF is_trailing(p_order.order_type) AND p_order.status = 'new' THEN
        p_order.trigger_price := (trailing_level(p_order.user_id, p_order.id)).level;
    END IF;
    RETURN p_order;
END
$$;

-- A trailing order that is touched keeps the level as its stop price, and gets its limit from it.
CREATE OR REPLACE FUNCTION keep_trailing_level(p_order orders) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
BEGIN
    IF is_trailing(p_order.order_type) AND p_order.status = 'new' THEN
        UPDATE orders AS o SET
            stop_price = p_order.trigger_price,
            trigger_price = p_order.trigger_price,
            limit_price = limit_of_level(o.trigger_watch, p_order.trigger_price, o.limit_offset)
        WHERE o.user_id = p_order.user_id AND o.id = p_order.id
        RETURNING o.* INTO STRICT v_order;
    END IF;
    RETURN v_order;
END
$$;

-- What the audit says of the trail as long as it stands: {mark, level}, empty without one.
CREATE OR REPLACE FUNCTION trail_details(p_order orders) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT jsonb_build_object('mark', l.mark, 'level', l.level)
        FROM trailing_levels AS l
        WHERE l.user_id = p_order.user_id AND l.subject_id = p_order.id
    ), '{}')
$$;

-- What judges an order judges its preview.
GRANT EXECUTE ON FUNCTION check_trail_form(jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_trail(jsonb, order_terms, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION is_trailing(text) TO trading_readers;
GRANT EXECUTE ON FUNCTION trailing_level(uuid, uuid) TO trading_readers;
GRANT EXECUTE ON FUNCTION level_of_request(jsonb, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION resting_price(jsonb, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION level_of_mark(text, numeric, numeric, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION limit_of_level(text, numeric, numeric) TO trading_readers;
