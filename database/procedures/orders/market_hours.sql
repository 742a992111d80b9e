SET LOCAL ROLE trading_readers;

-- When markets trade. Plain functions, run as whoever calls them, so that the procedures can use them inside.

-- True while p_calendar is open at p_at: from the opening instant to just before the closing one. A calendar with no
-- session there, or one that is not known, is closed.
CREATE OR REPLACE FUNCTION market_is_open(p_calendar text, p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN coalesce((
        SELECT c.always_open OR coalesce((
            -- Sessions of a calendar do not overlap, so only the last one to open can still be open.
            SELECT s.closes_at > p_at
            FROM market_sessions AS s
            WHERE s.calendar = p_calendar AND s.opens_at <= p_at
            ORDER BY s.opens_at DESC
            LIMIT 1
        ), false)
        FROM market_calendars AS c
        WHERE c.name = p_calendar
    ), false);
END
$$;

-- The first opening of p_calendar after p_at; null for one that is always open, or whose sessions end before.
CREATE OR REPLACE FUNCTION next_open(p_calendar text, p_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT min(s.opens_at) FROM market_sessions s WHERE s.calendar = p_calendar AND s.opens_at > p_at
$$;

GRANT EXECUTE ON FUNCTION market_is_open(text, timestamptz)
TO trading_procedures, trading_readers, trading_watchers;
GRANT EXECUTE ON FUNCTION next_open(text, timestamptz) TO trading_procedures, trading_readers;
