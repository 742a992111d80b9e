SET LOCAL ROLE trading_procedures;

-- Amounts of one currency in another: a positive amount takes the bid, a negative one the ask, directly or by one
-- cross through USD.

-- True when a quote may not be used at p_at: not there, from the future, or too old while its market is open. The
-- session's last quote holds while the market is closed. Age counts from the older of the provider's and our own time.
CREATE OR REPLACE FUNCTION quote_is_stale(
    p_quoted_at timestamptz, p_received_at timestamptz, p_age_ms_max integer, p_calendar text, p_at timestamptz
) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_quoted_at IS NULL OR quote_is_ahead(p_quoted_at, p_received_at, p_at) THEN true
        WHEN least(p_quoted_at, p_received_at) >= p_at - p_age_ms_max * interval '1 ms' THEN false
        ELSE market_is_open(p_calendar, p_at)
    END
$$;

-- More than the second by which clocks may differ. Intake refuses such quotes; whatever put this one there, or set the
-- clock back, nothing is filled by it.
CREATE OR REPLACE FUNCTION quote_is_ahead(
    p_quoted_at timestamptz, p_received_at timestamptz, p_at timestamptz
) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT greatest(p_quoted_at, p_received_at) > p_at + interval '1 second'
$$;

-- {multiplier, divisor} of one pair, quoted either way round; NULL when it is not quoted. p_at NULL: any age will do
-- (display). A quote of the other way round divides, because its reciprocal need not end and would lose a tie.
CREATE OR REPLACE FUNCTION pair_fraction(p_from text, p_to text, p_positive boolean, p_at timestamptz)
RETURNS numeric[]
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
        RETURN ARRAY[CASE WHEN p_positive THEN v_pair.bid ELSE v_pair.ask END, 1];
    END IF;
    RETURN ARRAY[1, CASE WHEN p_positive THEN v_pair.ask ELSE v_pair.bid END];
END
$$;

-- The same of any two currencies. TR004 without a usable quote; NULL for display.
CREATE OR REPLACE FUNCTION conversion_fraction(p_from text, p_to text, p_positive boolean, p_at timestamptz)
RETURNS numeric[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fraction numeric [];
    v_cross numeric [];
BEGIN
    IF p_from = p_to THEN
        RETURN ARRAY[1, 1];
    END IF;
    v_fraction := pair_fraction(p_from, p_to, p_positive, p_at);
    IF v_fraction IS NULL THEN
        v_fraction := pair_fraction(p_from, 'USD', p_positive, p_at);
        v_cross := pair_fraction('USD', p_to, p_positive, p_at);
        v_fraction := CASE WHEN v_fraction IS NOT NULL AND v_cross IS NOT NULL
            THEN ARRAY[v_fraction[1] * v_cross[1], v_fraction[2] * v_cross[2]]
        END;
    END IF;
    IF v_fraction IS NULL AND p_at IS NOT NULL THEN
        PERFORM refuse_stale_quote(p_from || p_to);
    END IF;
    RETURN v_fraction;
END
$$;

-- p_amount in the other currency, not rounded: what is booked is made of this.
CREATE OR REPLACE FUNCTION convert_amount(
    p_amount numeric, p_from text, p_to text, p_at timestamptz DEFAULT NULL
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fraction numeric [];
BEGIN
    IF p_from = p_to THEN
        RETURN p_amount;
    END IF;
    v_fraction := conversion_fraction(p_from, p_to, p_amount > 0, p_at);
    RETURN p_amount * v_fraction[1] / v_fraction[2];
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

GRANT EXECUTE ON FUNCTION quote_is_ahead(timestamptz, timestamptz, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION quote_is_stale(timestamptz, timestamptz, integer, text, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION pair_fraction(text, text, boolean, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION conversion_fraction(text, text, boolean, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION convert_amount(numeric, text, text, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION refuse_stale_quote(text) TO trading_readers;
