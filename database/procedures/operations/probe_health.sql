SET LOCAL ROLE trading_readers;

-- How the price feed stands, and by answering at all, that the database does: {open, fresh, newest_age_ms}.
-- `open` counts active instruments whose market is open, `fresh` those of them with a quote within its age limit;
-- newest_age_ms is of the newest quote among them, NULL without one.
CREATE OR REPLACE FUNCTION probe_health() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'open', count(*),
        'fresh', count(*) FILTER (WHERE a.age <= i.quote_age_ms_max * interval '1 millisecond'),
        'newest_age_ms', (extract(epoch FROM min(a.age)) * 1000)::bigint
    )
    FROM market_calendars AS c
    INNER JOIN instruments AS i ON i.calendar = c.name
    LEFT JOIN quotes AS q ON q.symbol = i.symbol
    CROSS JOIN LATERAL (SELECT clock_timestamp() - least(q.quoted_at, q.received_at) AS age) AS a
    WHERE i.is_active AND c.name = ANY (ARRAY(
        SELECT name FROM market_calendars WHERE market_is_open(name, clock_timestamp())
    ))
$$;

GRANT EXECUTE ON FUNCTION probe_health() TO function_trader;
