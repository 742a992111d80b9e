SET LOCAL ROLE trading_procedures;

-- Prices that nobody can trade on. An outage is of one symbol: it begins when the quote has become too old in an open
-- market, and ends with the next quote, or with the session.

-- The active symbols that are without a usable quote at p_now, sorted. A market has to be open for as long as a quote
-- may be old, so that an opening is no outage.
CREATE OR REPLACE FUNCTION symbols_without_price(p_now timestamptz) RETURNS text[]
LANGUAGE sql STABLE AS $$
    WITH overdue AS MATERIALIZED (
        SELECT i.symbol, i.calendar, i.quote_age_ms_max * interval '1 millisecond' AS age_max
        FROM instruments i
        LEFT JOIN quotes q ON q.symbol = i.symbol
        WHERE i.is_active AND coalesce(
            p_now - least(q.quoted_at, q.received_at) > i.quote_age_ms_max * interval '1 millisecond', true)
    )
    SELECT ARRAY(
        SELECT o.symbol FROM overdue o CROSS JOIN platform_settings s
        WHERE s.trade_always
           OR (market_is_open(o.calendar, p_now) AND market_is_open(o.calendar, p_now - o.age_max))
        ORDER BY o.symbol
    )
$$;

-- The connections that hear prices and have yet to be told how they stand: `stale` is what they have to know, of
-- `entered` and `left` they have not heard. Those that somebody is telling at p_now are left out.
CREATE OR REPLACE FUNCTION untold_connections(p_now timestamptz, p_limit integer)
RETURNS TABLE (connection_id text, entered text[], "left" text[], stale text[])
LANGUAGE sql STABLE AS $$
    WITH outages AS MATERIALIZED (
        SELECT ARRAY(SELECT o.symbol FROM price_outages o WHERE o.left_at IS NULL ORDER BY o.symbol) AS symbols
    )
    SELECT c.connection_id,
        ARRAY(SELECT unnest(w.stale) EXCEPT SELECT unnest(c.stale_told) ORDER BY 1),
        -- What it no longer listens to is not news.
        ARRAY(SELECT unnest(c.stale_told) EXCEPT SELECT unnest(o.symbols) ORDER BY 1),
        w.stale
    FROM connections c
    CROSS JOIN outages o
    CROSS JOIN LATERAL (SELECT CASE WHEN cardinality(c.symbols) = 0 THEN o.symbols
        ELSE ARRAY(SELECT unnest(o.symbols) INTERSECT SELECT unnest(c.symbols) ORDER BY 1) END AS stale) w
    WHERE 'market_data' = ANY (c.channels) AND c.token_expires_at > p_now
      AND (c.stale_claimed_until IS NULL OR c.stale_claimed_until <= p_now)
      AND c.stale_told <> w.stale
    ORDER BY c.connection_id
    LIMIT p_limit
$$;

-- Look at all prices: outages that begin or end are recorded and audited.
--
-- request {"version": 1}
-- answer  {"entered": [symbol], "left": [symbol], "stale": n, "untold": boolean}
-- `stale` counts the outages that are open, `untold` says that a connection does not know yet how prices stand. Safe to
-- repeat and to run twice at once: an outage is recorded once.
CREATE OR REPLACE FUNCTION watch_prices(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp();
    v_without CONSTANT text [] := symbols_without_price(v_now);
    v_entered text [];
    v_left text [];
BEGIN
    PERFORM check_request_version(request);
    WITH entered AS (
        INSERT INTO price_outages (symbol, quoted_at, entered_at)
        SELECT w.symbol, q.quoted_at, v_now
        FROM unnest(v_without) AS w (symbol)
        LEFT JOIN quotes AS q ON q.symbol = w.symbol
        ORDER BY w.symbol
        ON CONFLICT (symbol) WHERE left_at IS NULL DO NOTHING
        RETURNING symbol
    )
    SELECT coalesce(array_agg(symbol ORDER BY symbol), '{}') INTO v_entered FROM entered;

    -- What another caller has locked, it is ending.
    WITH over AS (
        SELECT id FROM price_outages WHERE left_at IS NULL AND symbol <> ALL (v_without)
        ORDER BY symbol
        FOR UPDATE SKIP LOCKED
    ), ended AS (
        -- Another caller may have begun it a moment after this one looked at its clock.
        UPDATE price_outages AS o SET left_at = greatest(o.entered_at, v_now) FROM over WHERE o.id = over.id
        RETURNING o.symbol
    )
    SELECT coalesce(array_agg(symbol ORDER BY symbol), '{}') INTO v_left FROM ended;

    IF cardinality(v_entered) > 0 THEN
        PERFORM append_platform_audit('platform', 'PRICES_STALE', jsonb_build_object('symbols', v_entered),
            'No quote is young enough to trade on');
    END IF;
    IF cardinality(v_left) > 0 THEN
        PERFORM append_platform_audit('platform', 'PRICES_STALE_ENDED', jsonb_build_object('symbols', v_left),
            'There are quotes again, or the market is closed');
    END IF;
    RETURN jsonb_build_object(
        'entered', to_jsonb(v_entered),
        'left', to_jsonb(v_left),
        'stale', (SELECT count(*) FROM price_outages WHERE left_at IS NULL),
        'untold', EXISTS (SELECT FROM untold_connections(v_now, 1))
    );
END
$$;

-- Take connections that have yet to be told how prices stand; nobody else gets them for claim_ms.
--
-- request {"version": 1, "limit": n, "claim_ms": n}
-- answer  [{"connection_id", "entered": [symbol], "left": [symbol], "stale": [symbol], "at"}], see untold_connections
CREATE OR REPLACE FUNCTION claim_price_notices(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp();
    v_claimed jsonb;
BEGIN
    PERFORM check_request_version(request);
    WITH free AS MATERIALIZED (
        SELECT c.connection_id, u.entered, u.left, u.stale
        FROM untold_connections(v_now, (request ->> 'limit')::integer) AS u
        INNER JOIN connections AS c ON c.connection_id = u.connection_id
        -- Looked at again under the lock: two callers at once do not both get it.
        WHERE c.stale_claimed_until IS NULL OR c.stale_claimed_until <= v_now
        ORDER BY c.connection_id
        FOR NO KEY UPDATE OF c SKIP LOCKED
    ), claimed AS (
        UPDATE connections AS c
        SET stale_claimed_until = v_now + (request ->> 'claim_ms')::integer * interval '1 millisecond'
        FROM free WHERE c.connection_id = free.connection_id
        RETURNING free.*
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'connection_id', connection_id, 'entered', entered, 'left', "left", 'stale', stale, 'at', v_now
    ) ORDER BY connection_id), '[]') INTO v_claimed FROM claimed;
    RETURN v_claimed;
END
$$;

-- Connections have been told.
--
-- request {"version": 1, "told": [{"connection_id", "stale": [symbol]}]}; answer {"told": n}
CREATE OR REPLACE FUNCTION record_price_notices(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_told integer;
BEGIN
    PERFORM check_request_version(request);
    PERFORM FROM connections
    WHERE connection_id IN (SELECT t ->> 'connection_id' FROM jsonb_array_elements(request -> 'told') AS t)
    ORDER BY connection_id FOR NO KEY UPDATE;
    UPDATE connections AS c
    SET stale_told = ARRAY(SELECT jsonb_array_elements_text(t -> 'stale') ORDER BY 1), stale_claimed_until = NULL
    FROM jsonb_array_elements(request -> 'told') AS t
    -- One that has left prices meanwhile begins anew when it comes back.
    WHERE c.connection_id = t ->> 'connection_id' AND 'market_data' = ANY (c.channels);
    GET DIAGNOSTICS v_told = ROW_COUNT;
    RETURN jsonb_build_object('told', v_told);
END
$$;

GRANT EXECUTE ON FUNCTION watch_prices(jsonb) TO function_relay, function_prices;
GRANT EXECUTE ON FUNCTION claim_price_notices(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION record_price_notices(jsonb) TO function_relay;
