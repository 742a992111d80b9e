SET LOCAL ROLE trading_procedures;

-- An order that only rests: refused where the quote of now, or while the market is closed the session's last, would
-- fill it. Behind the API's own check also: only a limit order that may rest is one.
CREATE OR REPLACE FUNCTION check_post_only(request jsonb, p_terms order_terms, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_buys boolean := request ->> 'side' = 'buy';
    v_limit numeric := (request ->> 'limit_price')::numeric;
BEGIN
    IF NOT coalesce((request ->> 'post_only')::boolean, false) THEN
        RETURN;
    END IF;
    IF request ->> 'order_type' <> 'limit' OR request ->> 'time_in_force' NOT IN ('day', 'gtc', 'gtd') THEN
        PERFORM refuse_value('post_only', 'true', 'left out');
    END IF;
    IF quote_is_stale(p_terms.quoted_at, p_terms.received_at, p_terms.quote_age_ms_max, p_terms.calendar, p_at) THEN
        PERFORM refuse_stale_quote(p_terms.symbol);
    END IF;
    IF touches(watch_of('limit', request ->> 'side', 'new'), v_limit, p_terms.bid, p_terms.ask) THEN
        PERFORM refuse_value('limit_price', v_limit::text, CASE WHEN v_buys
            THEN 'below the ask ' || p_terms.ask ELSE 'above the bid ' || p_terms.bid END);
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION check_post_only(jsonb, order_terms, timestamptz) TO trading_readers;
