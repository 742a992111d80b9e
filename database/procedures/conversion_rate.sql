-- The rate that turns an amount of one currency into another: a positive amount takes the bid, a negative one the
-- ask, directly or by one cross through USD.

-- True when a quote may not be used at p_at: too old while its market is open. The session's last quote holds while
-- the market is closed. Age counts from the older of the provider's and our own time.
CREATE OR REPLACE FUNCTION quote_is_stale(
    p_quoted_at timestamptz, p_received_at timestamptz, p_age_ms_max integer, p_calendar text, p_at timestamptz
) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN least(p_quoted_at, p_received_at) >= p_at - p_age_ms_max * interval '1 ms' THEN false
        ELSE market_is_open(p_calendar, p_at)
    END
$$;

-- One pair, quoted either way round; NULL when it is not quoted. p_at NULL: any age will do (display).
CREATE OR REPLACE FUNCTION pair_rate(p_from text, p_to text, p_positive boolean, p_at timestamptz) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_pair record;
BEGIN
    SELECT q.symbol, q.bid, q.ask, q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar INTO v_pair
    FROM quotes AS q
    INNER JOIN instruments AS i USING (symbol)
    WHERE q.symbol IN (p_from || p_to, p_to || p_from)
    ORDER BY q.symbol = p_from || p_to DESC
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF p_at IS NOT NULL AND quote_is_stale(
        v_pair.quoted_at, v_pair.received_at, v_pair.quote_age_ms_max, v_pair.calendar, p_at
    ) THEN
        PERFORM refuse_stale_quote(v_pair.symbol);
    END IF;
    IF v_pair.symbol = p_from || p_to THEN
        RETURN CASE WHEN p_positive THEN v_pair.bid ELSE v_pair.ask END;
    END IF;
    RETURN 1 / CASE WHEN p_positive THEN v_pair.ask ELSE v_pair.bid END;
END
$$;

CREATE OR REPLACE FUNCTION conversion_rate(
    p_from text, p_to text, p_positive boolean, p_at timestamptz DEFAULT NULL
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_rate numeric;
BEGIN
    IF p_from = p_to THEN
        RETURN 1;
    END IF;
    v_rate := coalesce(
        pair_rate(p_from, p_to, p_positive, p_at),
        pair_rate(p_from, 'USD', p_positive, p_at) * pair_rate('USD', p_to, p_positive, p_at)
    );
    IF v_rate IS NULL AND p_at IS NOT NULL THEN
        PERFORM refuse_stale_quote(p_from || p_to);
    END IF;
    RETURN v_rate;
END
$$;

CREATE OR REPLACE FUNCTION refuse_stale_quote(p_symbol text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'There is no fresh price of % now. Nothing was kept: send the same request again shortly.', p_symbol
    USING ERRCODE = 'TR004', DETAIL = jsonb_build_object(
        'field', 'symbol', 'value', p_symbol, 'constraint', 'a fresh quote'
    )::text;
END
$$;

ALTER FUNCTION quote_is_stale(timestamptz, timestamptz, integer, text, timestamptz) OWNER TO trading_procedures;
ALTER FUNCTION pair_rate(text, text, boolean, timestamptz) OWNER TO trading_procedures;
ALTER FUNCTION conversion_rate(text, text, boolean, timestamptz) OWNER TO trading_procedures;
ALTER FUNCTION refuse_stale_quote(text) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION quote_is_stale(timestamptz, timestamptz, integer, text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION pair_rate(text, text, boolean, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION conversion_rate(text, text, boolean, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION refuse_stale_quote(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quote_is_stale(timestamptz, timestamptz, integer, text, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION pair_rate(text, text, boolean, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION conversion_rate(text, text, boolean, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION refuse_stale_quote(text) TO trading_readers;
