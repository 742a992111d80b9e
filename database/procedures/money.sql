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

-- UTC with microseconds, the same text whatever the session's settings are.
CREATE OR REPLACE FUNCTION utc_text(p_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- The smallest uuidv7 of that millisecond: a bound for ranges over ids.
CREATE OR REPLACE FUNCTION uuidv7_floor(p_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(EPOCH FROM p_at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

ALTER FUNCTION uuidv7_floor(timestamptz) OWNER TO trading_procedures;
ALTER FUNCTION round_money(numeric, text) OWNER TO trading_procedures;
ALTER FUNCTION round_to_tick(numeric, numeric) OWNER TO trading_procedures;
ALTER FUNCTION utc_text(timestamptz) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION uuidv7_floor(timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION round_money(numeric, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION round_to_tick(numeric, numeric) FROM PUBLIC;
REVOKE ALL ON FUNCTION utc_text(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION round_money(numeric, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION round_to_tick(numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION utc_text(timestamptz) TO trading_readers;
