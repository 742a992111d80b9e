SET LOCAL ROLE trading_readers;

-- The newest quote of each of p_symbols (all symbols when null), in the order of the symbols, as an array of
--   {"symbol", "bid", "ask", "quoted_at", "source", "age_ms_max", "stale"}
-- A known symbol without a quote has null prices and is stale; an unknown one is left out. Prices are text. A quote is
-- stale when the older of its two times is further back than the instrument allows.
CREATE OR REPLACE FUNCTION list_quotes(p_symbols text[]) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'symbol', i.symbol,
        'bid', q.bid::text,
        'ask', q.ask::text,
        'quoted_at', q.quoted_at,
        'source', q.source,
        'age_ms_max', i.quote_age_ms_max,
        'stale', coalesce(
            clock_timestamp() - least(q.quoted_at, q.received_at) > i.quote_age_ms_max * interval '1 millisecond', true)
    ) ORDER BY i.symbol), '[]')
    FROM instruments i
    LEFT JOIN quotes q ON q.symbol = i.symbol
    WHERE p_symbols IS NULL OR i.symbol = ANY (p_symbols)
$$;

-- What a feed needs to know of each active instrument, with its newest quote when there is one.
CREATE OR REPLACE FUNCTION list_feed_instruments() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'symbol', i.symbol,
        'asset_class', i.asset_class,
        'base_currency', i.base_currency,
        'quote_currency', i.quote_currency,
        'tick_size', i.tick_size::text,
        'reference_price', i.reference_price::text,
        'reference_spread', i.reference_spread::text,
        'volatility_average', i.volatility_average::text,
        'age_ms_max', i.quote_age_ms_max,
        'bid', q.bid::text,
        'ask', q.ask::text
    ) ORDER BY i.symbol), '[]')
    FROM instruments i
    LEFT JOIN quotes q ON q.symbol = i.symbol
    WHERE i.is_active
$$;

GRANT EXECUTE ON FUNCTION list_quotes(text[]) TO function_trader, function_prices;
GRANT EXECUTE ON FUNCTION list_feed_instruments() TO function_prices;
