SET LOCAL ROLE trading_procedures;

-- Since when what the platform owes its accounts has been waiting, for alerts: each is NULL where nothing waits. They
-- value and join what trading_watchers may not read, so they are the procedures' own, and say no more than a time.

-- The stop-out that has waited longest: of the accounts whose episode stands at its stop-out level, those that are
-- still due, or whose worth is not known, while something of theirs could be closed. A position that was closed starts
-- the clock again. Of very many at once the first 500 are looked at, those that came to it first.
CREATE OR REPLACE FUNCTION stop_out_due_since(p_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH standing AS MATERIALIZED (
        SELECT e.user_id, e.account_id, greatest(e.changed_at, (
            SELECT max(o.created_at) FROM orders AS o
            WHERE o.user_id = e.user_id AND o.account_id = e.account_id AND o.id >= uuidv7_floor(e.changed_at)
                AND o.component_name = 'stop_out'
        )) AS since
        FROM margin_call_episodes AS e
        WHERE e.left_at IS NULL AND e.level_action = 'stop_out'
        ORDER BY e.changed_at
        LIMIT 500
    )
    SELECT min(s.since)
    FROM standing AS s
    INNER JOIN margin_levels(ARRAY(SELECT t.account_id FROM standing AS t), p_at) AS l ON s.account_id = l.account_id
    WHERE (l.stop_out_due OR l.unpriced IS NOT NULL) AND EXISTS (
        SELECT FROM positions AS p
        INNER JOIN instruments AS i ON p.symbol = i.symbol
        CROSS JOIN platform_settings AS f
        WHERE p.user_id = s.user_id AND p.account_id = s.account_id AND p.status = 'open'
            AND (f.trade_always OR market_is_open(i.calendar, p_at))
    )
$$;

-- The account of a wind-down that has waited longest: since that began for one that nobody has looked at, or that
-- somebody is at or has failed at; one whose markets are closed is due again in a minute, and waits from then on.
CREATE OR REPLACE FUNCTION wind_down_due_since() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT min(CASE WHEN a.attempts = 0 OR a.lease_expires_at IS NOT NULL THEN w.started_at ELSE a.due_at END)
    FROM wind_down_accounts AS a
    INNER JOIN wind_downs AS w ON a.wind_down_id = w.id
    WHERE a.done_at IS NULL
$$;

-- The first roll that is over, whose quote and rates are known, and that is not finished; or that nobody has made a row
-- of, because the end of the day does not run.
CREATE OR REPLACE FUNCTION roll_due_since(p_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT least(
        (SELECT min(r.rolled_at) FROM instrument_rolls AS r WHERE r.finished_at IS NULL AND r.basis IS NOT NULL),
        (SELECT min(m.rolled_at) FROM missed_rolls(p_at) AS m)
    )
$$;

CREATE OR REPLACE FUNCTION rolls_without_rate(p_until timestamptz) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT count(*) FROM instrument_rolls AS r
    WHERE r.finished_at IS NULL AND r.basis IS NULL AND r.rolled_at <= p_until
$$;

GRANT EXECUTE ON FUNCTION stop_out_due_since(timestamptz) TO trading_watchers;
GRANT EXECUTE ON FUNCTION wind_down_due_since() TO trading_watchers;
GRANT EXECUTE ON FUNCTION roll_due_since(timestamptz) TO trading_watchers;
GRANT EXECUTE ON FUNCTION rolls_without_rate(timestamptz) TO trading_watchers;
