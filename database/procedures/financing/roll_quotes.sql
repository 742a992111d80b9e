SET LOCAL ROLE trading_procedures;

-- The last quotes before a roll. `quotes` has one row a symbol; the one that a roll needs is kept when the first quote
-- behind the roll takes its place (write_quotes), so that a job that comes days later still finds it.

-- The last quote of a symbol at or before p_at; no row where there is none.
CREATE OR REPLACE FUNCTION quote_before(p_symbol text, p_at timestamptz)
RETURNS TABLE (bid numeric, ask numeric, quoted_at timestamptz)
LANGUAGE sql STABLE AS $$
    (
        SELECT q.bid, q.ask, q.quoted_at FROM quotes AS q WHERE q.symbol = p_symbol AND q.quoted_at <= p_at
        UNION ALL
        (
            SELECT k.bid, k.ask, k.quoted_at FROM roll_quotes AS k
            WHERE k.symbol = p_symbol AND k.quoted_at <= p_at
            ORDER BY k.quoted_at DESC
            LIMIT 1
        )
    )
    ORDER BY quoted_at DESC
    LIMIT 1
$$;

-- {multiplier, divisor} of one pair as it was quoted last before p_at; NULL when it was not. As pair_fraction.
CREATE OR REPLACE FUNCTION pair_fraction_before(p_from text, p_to text, p_positive boolean, p_at timestamptz)
RETURNS numeric[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT ARRAY[CASE WHEN p_positive THEN d.bid ELSE d.ask END, 1] FROM quote_before(p_from || p_to, p_at) AS d),
        (SELECT ARRAY[1, CASE WHEN p_positive THEN r.ask ELSE r.bid END] FROM quote_before(p_to || p_from, p_at) AS r)
    )
$$;

-- The same of any two currencies, directly or by one cross through USD. As conversion_fraction.
CREATE OR REPLACE FUNCTION fraction_before(p_from text, p_to text, p_positive boolean, p_at timestamptz)
RETURNS numeric[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fraction numeric [];
    v_cross numeric [];
BEGIN
    IF p_from = p_to THEN
        RETURN ARRAY[1, 1];
    END IF;
    v_fraction := pair_fraction_before(p_from, p_to, p_positive, p_at);
    IF v_fraction IS NOT NULL THEN
        RETURN v_fraction;
    END IF;
    v_fraction := pair_fraction_before(p_from, 'USD', p_positive, p_at);
    v_cross := pair_fraction_before('USD', p_to, p_positive, p_at);
    RETURN CASE WHEN v_fraction IS NOT NULL AND v_cross IS NOT NULL
        THEN ARRAY[v_fraction[1] * v_cross[1], v_fraction[2] * v_cross[2]]
    END;
END
$$;

GRANT EXECUTE ON FUNCTION quote_before(text, timestamptz) TO trading_readers;
