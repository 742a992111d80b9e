-- The only way in for quotes.

-- The volatility after a quote: the moving average of |return of the mid|, each return scaled to a day by the square
-- root of time, so that it does not depend on how often quotes come. A return weighs by the time that it covers, with
-- a half-life of 5 minutes. After a silence of 10 minutes (a closed market, an outage) nothing is known: the average.
CREATE OR REPLACE FUNCTION quote_volatility(
    p_known numeric, p_average numeric, p_mid_before numeric, p_mid numeric, p_seconds numeric
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN p_seconds > 600 THEN p_average
        ELSE round(
            p_known + (1 - power(0.5, p_seconds / 300))
            * (abs(p_mid / p_mid_before - 1) * sqrt(86400 / p_seconds) - p_known), 10)
        END
$$;

-- Record a batch of quotes of one source.
--   request {"version": 1, "source": text, "quotes": [{"symbol", "bid", "ask", "quoted_at"}],
--            "lease": {"name", "fence"} or absent}
--   answer  {"accepted": n, "ignored": n, "refused": [{"symbol", "reason"}],
--            "held": [{"symbol", "bid", "ask", "source"}]}
-- Quotes only move forward: one that is not newer than the row is ignored. quoted_at defaults to the database's clock.
-- A symbol set by hand (source `manual`) is held against the simulator: its prices stay and only their time is renewed,
-- so that a run can be made exact. Any other source takes it over.
-- A batch under a lease renews it; CONFLICT (TR005) when the lease has gone to another copy, and nothing is recorded.
CREATE OR REPLACE FUNCTION record_quotes(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    c_quotes_max CONSTANT integer := 1000;
    c_future_max CONSTANT interval := '1 second';
    c_lease CONSTANT interval := '5 seconds';
    v_source CONSTANT text := request ->> 'source';
    v_now CONSTANT timestamptz := clock_timestamp();
    v_answer jsonb;
BEGIN
    PERFORM check_request_version(request);
    IF coalesce(v_source, '') = '' OR jsonb_typeof(request -> 'quotes') IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'record_quotes needs a source and an array of quotes' USING ERRCODE = 'TR006';
    END IF;
    IF jsonb_array_length(request -> 'quotes') > c_quotes_max THEN
        RAISE EXCEPTION 'record_quotes takes at most % quotes at once', c_quotes_max USING ERRCODE = 'TR006';
    END IF;

    IF request ? 'lease' THEN
        UPDATE feed_leases SET expires_at = v_now + c_lease
        WHERE name = request -> 'lease' ->> 'name' AND fence = (request -> 'lease' ->> 'fence')::bigint;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another copy of the feed has taken over' USING ERRCODE = 'TR005';
        END IF;
    END IF;

    WITH offered AS MATERIALIZED (
        SELECT q.symbol, i.tick_size, i.volatility_average,
            CASE WHEN pg_input_is_valid(q.bid, 'numeric') THEN q.bid::numeric END AS bid,
            CASE WHEN pg_input_is_valid(q.ask, 'numeric') THEN q.ask::numeric END AS ask,
            CASE WHEN q.quoted_at IS NULL THEN v_now
                WHEN pg_input_is_valid(q.quoted_at, 'timestamptz') THEN q.quoted_at::timestamptz END AS quoted_at
        FROM jsonb_to_recordset(request -> 'quotes') AS q (symbol text, bid text, ask text, quoted_at text)
        LEFT JOIN instruments i ON i.symbol = q.symbol
    ), judged AS MATERIALIZED (
        SELECT o.*,
            CASE
                WHEN o.tick_size IS NULL THEN 'unknown_symbol'
                WHEN o.bid IS NULL OR o.ask IS NULL THEN 'not_a_number'
                -- NaN and Infinity sort above every number.
                WHEN o.bid >= 'Infinity' OR o.ask >= 'Infinity' THEN 'not_a_number'
                WHEN o.bid <= 0 OR o.ask <= 0 THEN 'not_positive'
                WHEN o.ask < o.bid THEN 'crossed'
                WHEN o.quoted_at IS NULL OR NOT isfinite(o.quoted_at) THEN 'no_time'
                WHEN o.quoted_at > v_now + c_future_max THEN 'in_the_future'
            END AS reason
        FROM offered o
    ), newest AS (
        -- In the order of the key, so that two writers cannot wait for each other.
        SELECT DISTINCT ON (j.symbol)
            j.symbol, j.quoted_at, j.volatility_average,
            round(j.bid, greatest(scale(j.bid), scale(j.tick_size))) AS bid,
            round(j.ask, greatest(scale(j.ask), scale(j.tick_size))) AS ask
        FROM judged j
        WHERE j.reason IS NULL
        ORDER BY j.symbol, j.quoted_at DESC
    ), written AS (
        INSERT INTO quotes AS kept (symbol, bid, ask, quoted_at, received_at, source, volatility)
        SELECT n.symbol, n.bid, n.ask, n.quoted_at, v_now, v_source, n.volatility_average FROM newest n
        ON CONFLICT (symbol) DO UPDATE SET
            (bid, ask, source, volatility) = (SELECT
                CASE WHEN h.held THEN kept.bid ELSE excluded.bid END,
                CASE WHEN h.held THEN kept.ask ELSE excluded.ask END,
                CASE WHEN h.held THEN kept.source ELSE excluded.source END,
                -- A price set by hand and a change of source say nothing about how the market moves.
                CASE WHEN h.held OR kept.source <> excluded.source OR excluded.source = 'manual'
                    THEN excluded.volatility
                    ELSE quote_volatility(
                        kept.volatility, excluded.volatility, (kept.bid + kept.ask) / 2,
                        (excluded.bid + excluded.ask) / 2,
                        extract(epoch FROM excluded.quoted_at - kept.quoted_at)) END
                FROM (SELECT kept.source = 'manual' AND excluded.source = 'simulated' AS held) h),
            quoted_at = excluded.quoted_at,
            received_at = excluded.received_at
        WHERE excluded.quoted_at > kept.quoted_at
        RETURNING kept.symbol, kept.bid, kept.ask, kept.source
    )
    SELECT jsonb_build_object(
        'accepted', (SELECT count(*) FROM written),
        'ignored', (SELECT count(*) FROM judged WHERE reason IS NULL) - (SELECT count(*) FROM written),
        'refused', (SELECT coalesce(jsonb_agg(jsonb_build_object('symbol', j.symbol, 'reason', j.reason)), '[]')
            FROM judged j WHERE j.reason IS NOT NULL),
        'held', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'symbol', w.symbol, 'bid', w.bid::text, 'ask', w.ask::text, 'source', w.source)), '[]')
            FROM written w WHERE w.source <> v_source))
    INTO v_answer;
    RETURN v_answer;
END
$$;

ALTER FUNCTION quote_volatility(numeric, numeric, numeric, numeric, numeric) OWNER TO trading_procedures;
ALTER FUNCTION record_quotes(jsonb) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION quote_volatility(numeric, numeric, numeric, numeric, numeric) FROM PUBLIC;
REVOKE ALL ON FUNCTION record_quotes(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_quotes(jsonb) TO function_prices;
