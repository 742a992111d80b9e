SET LOCAL ROLE trading_procedures;

-- Orders for the opening (opg) and for the close (cls): from active_at on they take one quote, the first, whatever it
-- is; what it does not fill is canceled.

CREATE OR REPLACE FUNCTION is_timed(p_time_in_force text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_time_in_force IN ('opg', 'cls')
$$;

-- When an order that is placed at p_at begins to take a quote, and when it ends without one: an opening one with the
-- first session to come that begins a day and at its end, a closing one a minute before the end of the trading day and
-- at it. NULL for the opening of a market that never closes, or whose sessions last longer than a day.
CREATE OR REPLACE FUNCTION time_of_order(
    p_time_in_force text, p_calendar text, p_at timestamptz, OUT active_at timestamptz, OUT ends_at timestamptz
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- Within so long after another one's opening a session goes on after its lunch break.
    c_day CONSTANT interval := '12 hours';
    c_before_the_close CONSTANT interval := '1 minute';
BEGIN
    IF p_time_in_force = 'cls' THEN
        ends_at := trading_day_end(p_calendar, p_at);
        active_at := ends_at - c_before_the_close;
        RETURN;
    END IF;
    SELECT s.opens_at, s.closes_at INTO active_at, ends_at
    FROM market_sessions AS s
    INNER JOIN market_calendars AS c ON c.name = s.calendar
    WHERE s.calendar = p_calendar AND s.opens_at > p_at
        AND NOT c.always_open AND s.closes_at - s.opens_at <= interval '24 hours'
        AND NOT EXISTS (
            SELECT FROM market_sessions AS m
            WHERE m.calendar = s.calendar AND m.opens_at < s.opens_at AND m.opens_at > s.opens_at - c_day
        )
    ORDER BY s.opens_at LIMIT 1;
END
$$;

-- Behind the API's own check, and whether the market has such a time.
CREATE OR REPLACE FUNCTION check_timed(request jsonb, p_terms order_terms, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_time text := request ->> 'time_in_force';
BEGIN
    IF NOT coalesce(is_timed(v_time), false) THEN
        RETURN;
    END IF;
    IF (time_of_order(v_time, p_terms.calendar, p_at)).active_at IS NULL THEN
        PERFORM refuse_value('time_in_force', v_time, 'cls: the market of ' || p_terms.symbol || ' has no daily opening');
    END IF;
END
$$;

-- A market order that waits, for a time or for conditions, is judged at the quote of now, or the session's last. Nobody
-- knows yet where it will be filled, so it takes no exits.
CREATE OR REPLACE FUNCTION check_unpriced(request jsonb, p_terms order_terms, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF request ->> 'order_type' <> 'market' THEN
        RETURN;
    END IF;
    PERFORM check_price_given(request, 'stop_loss', false);
    PERFORM check_price_given(request, 'take_profit', false);
    IF quote_is_stale(p_terms.quoted_at, p_terms.received_at, p_terms.quote_age_ms_max, p_terms.calendar, p_at) THEN
        PERFORM refuse_stale_quote(p_terms.symbol);
    END IF;
END
$$;

-- Whether the quote of p_touch is still one that the order waits for.
CREATE OR REPLACE FUNCTION is_touched(p_order orders, p_touch trigger_queue) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_order.active_at IS NOT NULL THEN
        RETURN p_touch.quoted_at >= p_order.active_at;
    END IF;
    RETURN coalesce(touches(p_order.trigger_watch, p_order.trigger_price, p_touch.bid, p_touch.ask), false);
END
$$;

-- The one quote of a timed order. Returns the order as it ends.
CREATE OR REPLACE FUNCTION act_at_its_time(
    request jsonb, p_account accounts, p_order orders, p_terms order_terms, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
BEGIN
    IF p_order.limit_price IS NULL OR touches(
        watch_of('limit', p_order.side, 'new'), p_order.limit_price, p_terms.bid, p_terms.ask
    ) THEN
        v_order := fill_working_order(request, p_account, p_order, p_terms, p_at);
    END IF;
    IF v_order.status IN ('new', 'partially_filled') THEN
        v_order := end_order(
            request, account_under_lock(p_account), v_order, 'canceled', NULL,
            format('The %s did not fill it', CASE p_order.time_in_force WHEN 'opg' THEN 'opening' ELSE 'close' END), p_at
        );
    END IF;
    RETURN v_order;
END
$$;

-- What judges an order judges its preview.
GRANT EXECUTE ON FUNCTION is_timed(text) TO trading_readers;
GRANT EXECUTE ON FUNCTION time_of_order(text, text, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_timed(jsonb, order_terms, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_unpriced(jsonb, order_terms, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_price_given(jsonb, text, boolean) TO trading_readers;
