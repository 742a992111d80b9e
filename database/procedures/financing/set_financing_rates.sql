SET LOCAL ROLE trading_procedures;

-- Rates of financing, as the platform's liquidity providers quote them. What was charged by an earlier rate stays: a
-- roll keeps the rate that it was charged by.
-- request {version: 1, rates: [{symbol, valid_from, valid_until, long_rate, short_rate, markup, basis, source}], actor,
--   reason}
-- -> {changed: n}; a rate that begins on the day of a known one takes its place. Raises TR006, and nothing is kept.
CREATE OR REPLACE FUNCTION set_financing_rates(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_unknown text;
    v_changed jsonb;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_reason(request, true);
    SELECT min(r.symbol) INTO v_unknown
    FROM jsonb_to_recordset(request -> 'rates') AS r (symbol text)
    WHERE NOT EXISTS (SELECT FROM instruments AS i WHERE i.symbol = r.symbol);
    IF v_unknown IS NOT NULL THEN
        PERFORM refuse_value('symbol', v_unknown, 'a known instrument');
    END IF;
    WITH changed AS (
        INSERT INTO financing_rates AS kept (
            symbol, valid_from, valid_until, long_rate, short_rate, markup, basis, source
        )
        SELECT r.symbol, r.valid_from, r.valid_until, r.long_rate, r.short_rate, r.markup, r.basis, r.source
        FROM jsonb_to_recordset(request -> 'rates') AS r (
            symbol text, valid_from date, valid_until date, long_rate numeric, short_rate numeric, markup numeric,
            basis text, source text
        )
        ORDER BY r.symbol, r.valid_from
        ON CONFLICT (symbol, valid_from) DO UPDATE SET
            valid_until = excluded.valid_until, long_rate = excluded.long_rate, short_rate = excluded.short_rate,
            markup = excluded.markup, basis = excluded.basis, source = excluded.source
        WHERE (kept.valid_until, kept.long_rate, kept.short_rate, kept.markup, kept.basis, kept.source)
            IS DISTINCT FROM (excluded.valid_until, excluded.long_rate, excluded.short_rate, excluded.markup,
                excluded.basis, excluded.source)
        RETURNING kept.*
    )
    SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.symbol, c.valid_from), '[]') INTO v_changed FROM changed AS c;
    IF v_changed <> '[]' THEN
        PERFORM append_platform_audit(
            request ->> 'actor', 'FINANCING_RATES_SET', jsonb_build_object('rates', v_changed), request ->> 'reason'
        );
    END IF;
    RETURN jsonb_build_object('changed', jsonb_array_length(v_changed));
END
$$;
