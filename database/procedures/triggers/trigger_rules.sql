SET LOCAL ROLE trading_procedures;

-- What a working order waits for, and when a price has come to it. Buys look at the ask, sells at the bid.

-- The side of the quote, and from where it has to come. A stop waits for a worse price, everything else for a better
-- one; an order with a limit that has been triggered waits for its limit.
CREATE OR REPLACE FUNCTION watch_of(p_order_type text, p_side text, p_status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_side WHEN 'buy' THEN 'ask' ELSE 'bid' END || CASE
        WHEN (
            p_order_type IN ('stop', 'stop_limit', 'trailing_stop', 'trailing_stop_limit') AND p_status = 'new'
        ) = (p_side = 'buy') THEN '_rises'
        ELSE '_falls'
    END
$$;

-- The price at which that happens; NULL while it trails (trailing_levels has it), and of one that waits for a time.
-- What has no limit keeps waiting for its stop, also with parts of it filled.
CREATE OR REPLACE FUNCTION trigger_level(p_order orders) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_order.active_at IS NOT NULL THEN NULL
        WHEN p_order.status = 'new' OR p_order.limit_price IS NULL
            THEN coalesce(p_order.stop_price, p_order.limit_price)
        ELSE p_order.limit_price
    END
$$;

CREATE OR REPLACE FUNCTION touches(p_watch text, p_level numeric, p_bid numeric, p_ask numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_watch
        WHEN 'ask_rises' THEN p_ask >= p_level
        WHEN 'ask_falls' THEN p_ask <= p_level
        WHEN 'bid_rises' THEN p_bid >= p_level
        WHEN 'bid_falls' THEN p_bid <= p_level
    END
$$;

-- Which exit of a position a quote touches: 'stop_loss' before 'take_profit' when both, NULL for none. Longs leave at
-- the bid, shorts at the ask. A stop that trails comes between the two (exit_of_touch).
CREATE OR REPLACE FUNCTION touched_exit(p_position positions, p_bid numeric, p_ask numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_position.side
        WHEN 'long' THEN CASE
            WHEN p_bid <= p_position.stop_loss THEN 'stop_loss' WHEN p_bid >= p_position.take_profit THEN 'take_profit'
        END
        ELSE CASE
            WHEN p_ask >= p_position.stop_loss THEN 'stop_loss' WHEN p_ask <= p_position.take_profit THEN 'take_profit'
        END
    END
$$;

-- How many lots stand at the touched side of one quote for an order with a limit: what the instrument trades in a
-- second of an average day, at least the smallest lot. The rest waits for the next quote.
CREATE OR REPLACE FUNCTION venue_depth(p_terms order_terms) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT greatest(
        p_terms.quantity_min,
        floor(p_terms.daily_volume / 86400 / p_terms.quantity_step) * p_terms.quantity_step
    )
$$;

-- When the trading day of p_at ends: with its session (with the last of two that have a lunch break between them), or
-- where sessions last longer than a day, and where the market never closes, at 17:00 in New York. While the market is
-- closed, the day of the next session.
CREATE OR REPLACE FUNCTION trading_day_end(p_calendar text, p_at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- What an exchange's day lasts at most, from its opening to its close.
    c_day CONSTANT interval := '12 hours';
    v_session market_sessions;
    v_from timestamptz;
    v_roll timestamptz;
BEGIN
    SELECT * INTO v_session FROM market_sessions AS s
    WHERE s.calendar = p_calendar AND s.closes_at > p_at
    ORDER BY s.opens_at LIMIT 1;
    v_from := greatest(p_at, coalesce(v_session.opens_at, p_at));
    v_roll := (date_trunc('day', v_from AT TIME ZONE 'America/New_York') + interval '17 hours')
        AT TIME ZONE 'America/New_York';
    IF v_roll <= v_from THEN
        v_roll := (date_trunc('day', v_from AT TIME ZONE 'America/New_York') + interval '41 hours')
            AT TIME ZONE 'America/New_York';
    END IF;
    IF v_session.closes_at - v_session.opens_at <= interval '24 hours' THEN
        RETURN greatest(v_session.closes_at, (
            SELECT max(s.closes_at) FROM market_sessions AS s
            WHERE s.calendar = p_calendar AND s.opens_at > v_session.opens_at
                AND s.closes_at <= v_session.opens_at + c_day
        ));
    END IF;
    RETURN least(v_roll, v_session.closes_at);
END
$$;

GRANT EXECUTE ON FUNCTION watch_of(text, text, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION touches(text, numeric, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION trading_day_end(text, timestamptz) TO trading_readers;
