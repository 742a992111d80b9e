SET LOCAL ROLE trading_procedures;

-- Rounding and text forms that every procedure shares.

-- Half-up (away from zero) to the currency's minor unit.
CREATE OR REPLACE FUNCTION round_money(p_amount numeric, p_currency text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT round(p_amount, CASE WHEN p_currency IN ('JPY', 'KRW', 'HUF') THEN 0 ELSE 2 END)
$$;

CREATE OR REPLACE FUNCTION round_to_tick(p_price numeric, p_tick numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT round(p_price / p_tick) * p_tick
$$;

-- A price with the decimal places of another one, which lies on the tick, and more only where they say something.
CREATE OR REPLACE FUNCTION with_places(p_price numeric, p_on_tick numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT round(p_price, greatest(scale(p_price), coalesce(scale(p_on_tick), 0)))
$$;

-- The forms in which answers show numbers: money in its currency's minor unit, a price with the places of its tick
-- (and more only where they say something, as in an average), anything else without zeros at its end.
CREATE OR REPLACE FUNCTION money_form(p_amount numeric, p_currency text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT round_money(p_amount, p_currency)::text
$$;

CREATE OR REPLACE FUNCTION price_form(p_price numeric, p_tick numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT round(p_price, greatest(scale(p_tick), min_scale(p_price)))::text
$$;

CREATE OR REPLACE FUNCTION number_form(p_number numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT trim_scale(p_number)::text
$$;

-- UTC with microseconds, the same text whatever the session's settings are. STABLE, as to_char() is: under a stricter
-- name PostgreSQL would call it instead of putting it in line.
CREATE OR REPLACE FUNCTION utc_text(p_at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- The smallest uuidv7 of that millisecond: a bound for ranges over ids.
CREATE OR REPLACE FUNCTION uuidv7_floor(p_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(EPOCH FROM p_at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

GRANT EXECUTE ON FUNCTION uuidv7_floor(timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION round_money(numeric, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION round_to_tick(numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION money_form(numeric, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION price_form(numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION number_form(numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION utc_text(timestamptz) TO trading_readers;
