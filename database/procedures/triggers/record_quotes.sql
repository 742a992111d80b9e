SET LOCAL ROLE trading_procedures;

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
--   answer  {"accepted": n, "ignored": n, "touched": n, "due": boolean,
--            "refused": [{"symbol", "reason"}],
--            "held": [{"symbol", "bid", "ask", "source"}]}
-- Quotes only move forward: one that is not newer than the row is ignored. quoted_at defaults to the database's clock.
-- Several quotes of a symbol are taken in the order of their times. What each touches is queued with it, in the same
-- transaction: `touched` says how much (queue_touched). `due`: something is queued that no worker has.
-- A symbol set by hand (source `manual`) is held against the simulator: its prices stay and only their time is renewed,
-- so that a run can be made exact. Any other source takes it over.
-- A batch under a lease renews it; CONFLICT (TR005) when the lease has gone to another copy, and nothing is recorded.
CREATE OR REPLACE FUNCTION record_quotes(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    c_quotes_max CONSTANT integer := 1000;
    c_lease CONSTANT interval := '3 seconds';
    v_source CONSTANT text := request ->> 'source';
    v_now CONSTANT timestamptz := clock_timestamp();
    v_offered offered_quote [];
    v_round quotes [];
    v_written quotes [] := '{}';
    v_touched bigint := 0;
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

    v_offered := judge_quotes(request -> 'quotes', v_now);
    -- Round by round: the second quote of a symbol finds what the first has left.
    FOR v_place IN 1..coalesce((SELECT max(o.place) FROM unnest(v_offered) AS o), 0) LOOP
        v_round := write_quotes(v_offered, v_place, v_source, v_now);
        v_touched := v_touched + queue_touched(ARRAY(SELECT w.symbol FROM unnest(v_round) AS w), v_now);
        v_written := v_written || v_round;
    END LOOP;
    PERFORM trip_symbol_breakers(v_written, v_now);
    RETURN jsonb_build_object(
        'accepted', cardinality(v_written),
        'ignored', (SELECT count(*) FROM unnest(v_offered) AS o WHERE o.reason IS NULL) - cardinality(v_written),
        'touched', v_touched,
        'due', EXISTS (
            SELECT FROM trigger_queue AS w WHERE w.lease_expires_at IS NULL OR w.lease_expires_at <= v_now
        ),
        'refused', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('symbol', o.symbol, 'reason', o.reason)), '[]')
            FROM unnest(v_offered) AS o WHERE o.reason IS NOT NULL
        ),
        'held', (
            SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object(
                'symbol', w.symbol, 'bid', w.bid::text, 'ask', w.ask::text, 'source', w.source
            )), '[]')
            FROM unnest(v_written) AS w WHERE w.source <> v_source
        )
    );
END
$$;

-- The quotes of a batch as numbers and times, each with the reason why it is refused, if it is, and its place among
-- those of its symbol.
CREATE OR REPLACE FUNCTION judge_quotes(p_quotes jsonb, p_now timestamptz) RETURNS offered_quote[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_future_max CONSTANT interval := '1 second';
    -- Of all prices, those of orders too.
    c_price_bound CONSTANT numeric := 1e18;
BEGIN
    RETURN ARRAY(
        WITH offered AS MATERIALIZED (
            SELECT q.symbol, i.tick_size, i.volatility_average,
                CASE WHEN pg_input_is_valid(q.bid, 'numeric') THEN q.bid::numeric END AS bid,
                CASE WHEN pg_input_is_valid(q.ask, 'numeric') THEN q.ask::numeric END AS ask,
                CASE WHEN q.quoted_at IS NULL THEN p_now
                    WHEN pg_input_is_valid(q.quoted_at, 'timestamptz') THEN q.quoted_at::timestamptz END AS quoted_at
            FROM jsonb_to_recordset(p_quotes) AS q (symbol text, bid text, ask text, quoted_at text)
            LEFT JOIN instruments i ON i.symbol = q.symbol
        ), judged AS MATERIALIZED (
            SELECT o.*,
                CASE
                    WHEN o.tick_size IS NULL THEN 'unknown_symbol'
                    WHEN o.bid IS NULL OR o.ask IS NULL THEN 'not_a_number'
                    -- NaN and Infinity sort above every number.
                    WHEN o.bid >= 'Infinity' OR o.ask >= 'Infinity' THEN 'not_a_number'
                    WHEN o.bid <= 0 OR o.ask <= 0 THEN 'not_positive'
                    WHEN o.ask >= c_price_bound THEN 'too_large'
                    WHEN o.ask < o.bid THEN 'crossed'
                    WHEN o.quoted_at IS NULL OR NOT isfinite(o.quoted_at) THEN 'no_time'
                    WHEN o.quoted_at > p_now + c_future_max THEN 'in_the_future'
                END AS reason
            FROM offered o
        )
        SELECT ROW(
            j.symbol,
            round(j.bid, greatest(scale(j.bid), scale(j.tick_size))),
            round(j.ask, greatest(scale(j.ask), scale(j.tick_size))),
            j.quoted_at, j.volatility_average, j.reason,
            row_number() OVER (PARTITION BY j.symbol, j.reason IS NULL ORDER BY j.quoted_at)
        )::offered_quote
        FROM judged j
    );
END
$$;

-- Writes the quotes of one place that are newer than those that stand; the rows as they stand then. One that was the
-- last before a roll is kept for its financing (roll_quotes).
CREATE OR REPLACE FUNCTION write_quotes(
    p_offered offered_quote[], p_place integer, p_source text, p_now timestamptz
) RETURNS quotes[]
LANGUAGE plpgsql AS $$
DECLARE
    v_window CONSTANT interval := (SELECT s.price_move_window_s * interval '1 s' FROM platform_settings AS s);
    v_written quotes [];
BEGIN
    WITH written AS (
        INSERT INTO quotes AS kept (symbol, bid, ask, quoted_at, received_at, source, volatility, range)
        SELECT
            o.symbol, o.bid, o.ask, o.quoted_at, p_now, p_source, o.volatility_average,
            next_price_range(NULL, (o.bid + o.ask) / 2, o.quoted_at, NULL)
        FROM unnest(p_offered) AS o
        WHERE o.place = p_place AND o.reason IS NULL
        -- In the order of the key, so that two writers cannot wait for each other.
        ORDER BY o.symbol
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
            received_at = excluded.received_at,
            -- Another source's prices are no move, and a price set by hand is none. What was before a breaker was armed
            -- again does not count.
            range = CASE
                WHEN kept.source = 'manual' AND excluded.source = 'simulated' THEN kept.range
                ELSE next_price_range(
                    CASE WHEN kept.source = excluded.source AND kept.source <> 'manual' AND NOT EXISTS (
                        SELECT FROM symbol_breakers AS b
                        WHERE b.symbol = kept.symbol AND b.armed_at > kept.received_at
                    ) THEN kept.range END,
                    (excluded.bid + excluded.ask) / 2, excluded.quoted_at, v_window
                )
            END
        WHERE excluded.quoted_at > kept.quoted_at
        RETURNING WITH (OLD AS before) kept AS quote, before.bid, before.ask, before.quoted_at
    ),
    rolls AS MATERIALIZED (
        SELECT DISTINCT r.rolled_at
        FROM (SELECT min(w.quoted_at) AS first, max((w.quote).quoted_at) AS last FROM written AS w) AS w
        CROSS JOIN LATERAL rolls_between(w.first, w.last) AS r
    ),
    last_before_a_roll AS (
        INSERT INTO roll_quotes (symbol, quoted_at, bid, ask)
        SELECT (w.quote).symbol, w.quoted_at, w.bid, w.ask
        FROM written AS w
        WHERE EXISTS (
            SELECT FROM rolls AS r WHERE r.rolled_at >= w.quoted_at AND r.rolled_at < (w.quote).quoted_at
        )
        ON CONFLICT DO NOTHING
    )
    SELECT coalesce(array_agg(w.quote), '{}') INTO v_written FROM written AS w;
    RETURN v_written;
END
$$;

GRANT EXECUTE ON FUNCTION record_quotes(jsonb) TO function_prices;
