SET LOCAL ROLE trading_procedures;

-- Rolls as rows: made when they are over, given their terms when these are known, finished when all is charged.

-- Makes the rolls of each financed instrument that have come since its last one, and writes quote and rates to those
-- that have none yet. A roll is left alone for a minute: what was traded before it has been committed by then, because
-- no statement of ours may take as long.
-- request {version: 1} -> {rolls: [{symbol, roll_date}]}: those that are not finished, in the order in which they came.
CREATE OR REPLACE FUNCTION open_rolls(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    c_settled CONSTANT interval := '1 minute';
    v_at timestamptz := clock_timestamp();
BEGIN
    PERFORM check_request_version(request);
    PERFORM make_rolls(v_at - c_settled);
    PERFORM price_rolls();
    RETURN jsonb_build_object('rolls', coalesce((
        SELECT jsonb_agg(jsonb_build_object('symbol', r.symbol, 'roll_date', r.roll_date)
            ORDER BY r.rolled_at, r.symbol)
        FROM instrument_rolls AS r
        WHERE r.finished_at IS NULL
    ), '[]'));
END
$$;

-- The rolls before p_until of which there is no row yet, of financed instruments: those since the last that there is.
CREATE OR REPLACE FUNCTION missed_rolls(p_until timestamptz)
RETURNS TABLE (symbol text, roll_date date, rolled_at timestamptz, days integer)
LANGUAGE sql STABLE AS $$
    WITH last AS MATERIALIZED (
        SELECT
            f.symbol, f.schedule, greatest(s.rolls_after, f.rolls_after, (
                SELECT max(r.rolled_at) FROM instrument_rolls AS r WHERE r.symbol = f.symbol
            )) AS rolled_at
        FROM instrument_financing AS f
        INNER JOIN financing_schedules AS s ON f.schedule = s.name
    ),
    passed AS MATERIALIZED (
        SELECT r.*, roll_days(r.schedule, r.roll_date) AS days
        FROM rolls_between((SELECT min(l.rolled_at) FROM last AS l), p_until) AS r
    )
    SELECT l.symbol, m.roll_date, m.rolled_at, m.days
    FROM last AS l
    INNER JOIN passed AS m ON l.schedule = m.schedule AND m.rolled_at > l.rolled_at
    WHERE m.days > 0
$$;

-- Rows for the rolls up to p_until that are missing, in one statement whatever the days that were missed.
CREATE OR REPLACE FUNCTION make_rolls(p_until timestamptz) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO instrument_rolls (symbol, roll_date, rolled_at, days)
    SELECT m.symbol, m.roll_date, m.rolled_at, m.days
    FROM missed_rolls(p_until) AS m
    -- In key order, so that two at once cannot wait for each other.
    ORDER BY m.symbol, m.roll_date
    ON CONFLICT DO NOTHING
$$;

CREATE OR REPLACE FUNCTION price_rolls() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH known AS MATERIALIZED (
        SELECT r.symbol, r.roll_date, q.bid, q.ask, q.quoted_at, f.long_rate, f.short_rate, f.markup, f.basis
        FROM instrument_rolls AS r
        CROSS JOIN LATERAL quote_before(r.symbol, r.rolled_at) AS q
        CROSS JOIN LATERAL (
            SELECT f.* FROM financing_rates AS f
            WHERE f.symbol = r.symbol AND f.valid_from <= r.roll_date AND f.valid_until >= r.roll_date
            ORDER BY f.valid_from DESC
            LIMIT 1
        ) AS f
        WHERE r.finished_at IS NULL AND r.basis IS NULL
    ),
    locked AS MATERIALIZED (
        SELECT r.symbol, r.roll_date
        FROM instrument_rolls AS r
        INNER JOIN known AS k USING (symbol, roll_date)
        WHERE r.basis IS NULL
        ORDER BY r.symbol, r.roll_date
        FOR NO KEY UPDATE OF r
    )
    UPDATE instrument_rolls AS r SET
        bid = k.bid, ask = k.ask, quoted_at = k.quoted_at, long_rate = k.long_rate, short_rate = k.short_rate,
        markup = k.markup, basis = k.basis
    FROM known AS k
    INNER JOIN locked AS l USING (symbol, roll_date)
    WHERE r.symbol = k.symbol AND r.roll_date = k.roll_date;
END
$$;

-- Marks as finished what a pass over all accounts found nothing left of. request {version: 1, rolls: [{symbol,
-- roll_date}]} -> {finished: n}
CREATE OR REPLACE FUNCTION finish_rolls(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_finished bigint;
BEGIN
    PERFORM check_request_version(request);
    WITH locked AS MATERIALIZED (
        SELECT r.symbol, r.roll_date
        FROM instrument_rolls AS r
        INNER JOIN jsonb_to_recordset(request -> 'rolls') AS g (symbol text, roll_date date) USING (symbol, roll_date)
        WHERE r.finished_at IS NULL
        ORDER BY r.symbol, r.roll_date
        FOR NO KEY UPDATE OF r
    )
    UPDATE instrument_rolls AS r SET finished_at = clock_timestamp()
    FROM locked AS l
    WHERE r.symbol = l.symbol AND r.roll_date = l.roll_date;
    GET DIAGNOSTICS v_finished = ROW_COUNT;
    RETURN jsonb_build_object('finished', v_finished);
END
$$;

GRANT EXECUTE ON FUNCTION open_rolls(jsonb) TO function_end_of_day;
GRANT EXECUTE ON FUNCTION finish_rolls(jsonb) TO function_end_of_day;
