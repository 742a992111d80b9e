SET LOCAL ROLE trading_watchers;

-- The figures that alert rules are about, counted from rows by a role that may only read what it counts. Each procedure
-- is one collector, so that one that fails takes no other's figures with it.
--
-- request {version: 1, at?, windows: [seconds]}; `at` is the database's clock unless it is given.
-- answer  [{figure, subject, window_seconds, value, samples}]; window_seconds 0 where a figure is of the moment.
-- `value` is NULL where there were no observations (samples 0): a rate of nothing is no rate.

-- A figure as collectors answer it.
CREATE OR REPLACE FUNCTION figure(
    p_name text, p_subject text, p_window_seconds integer, p_value numeric, p_samples bigint
) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_object(
        'figure', p_name, 'subject', p_subject, 'window_seconds', p_window_seconds, 'value', round(p_value, 3),
        'samples', p_samples
    )
$$;

-- The moment that a collector is asked about, by a request of a version that it knows.
CREATE OR REPLACE FUNCTION collected_at(request jsonb) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM check_request_version(request);
    RETURN coalesce((request ->> 'at')::timestamptz, clock_timestamp());
END
$$;

-- How long something has waited, in seconds; 0 for nothing, and for what is not due yet.
CREATE OR REPLACE FUNCTION waiting_seconds(p_since timestamptz, p_at timestamptz) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT greatest(coalesce(extract(EPOCH FROM p_at - p_since), 0), 0)
$$;

-- Orders that came to an outcome in each window, by the audit, which finds them by time: how many there were, how many
-- were filled, failed by the platform or a venue, refused for what they asked, and of those refused how many because
-- trading was halted; of those filled how many were good (market orders within 400 ms) and, of market orders, how many
-- were timed and took over a second, and what they took in milliseconds: average, and 50th, 95th and 99th percentile,
-- from the account's lock to the last fill.
DROP FUNCTION IF EXISTS count_orders(timestamptz, integer[]);
CREATE FUNCTION count_orders(p_at timestamptz, p_windows integer[])
RETURNS TABLE (
    seconds integer, ended bigint, filled bigint, failed bigint, refused bigint, halted bigint, good bigint,
    timed bigint, slow bigint, average_ms numeric, percentiles_ms double precision[]
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH steps AS MATERIALIZED (
        SELECT l.user_id, l.order_id, l.created_at,
            l.action = 'FILLED' AS is_fill,
            l.action = 'REJECTED' AND l.status = 'rejected'
            AND NOT order_was_refused(l.details ->> 'code') AS is_failure,
            l.action = 'REJECTED' AND coalesce(l.details ->> 'code', '') = 'TRADING_HALTED' AS is_halted,
            greatest(l.created_at, uuid_extract_timestamp(l.id)) AS written_at
        FROM order_audit_log AS l
        WHERE l.created_at > p_at - (SELECT max(w) FROM unnest(p_windows) AS w) * interval '1 second'
            AND l.created_at <= p_at AND l.action IN ('FILLED', 'REJECTED')
    ), outcomes AS (
        SELECT s.user_id, s.order_id, w.seconds, bool_or(s.is_fill) AS filled, bool_or(s.is_failure) AS failed,
            bool_or(s.is_halted) AS halted, max(s.written_at) FILTER (WHERE s.is_fill) AS filled_at
        FROM steps AS s
        INNER JOIN unnest(p_windows) AS w (seconds) ON s.created_at > p_at - w.seconds * interval '1 second'
        GROUP BY s.user_id, s.order_id, w.seconds
    ), timed AS (
        SELECT o.*, l.took_ms
        FROM outcomes AS o
        LEFT JOIN LATERAL (
            SELECT (extract(EPOCH FROM o.filled_at - l.created_at) * 1000)::numeric AS took_ms
            FROM order_audit_log AS l
            WHERE l.user_id = o.user_id AND l.order_id = o.order_id AND l.action = 'SUBMITTED'
                AND l.details ->> 'order_type' = 'market'
                AND coalesce(l.details ->> 'time_in_force', '') NOT IN ('opg', 'cls')
            ORDER BY l.created_at
            LIMIT 1
        ) AS l ON o.filled
    )
    SELECT w.seconds,
        count(t.order_id),
        count(*) FILTER (WHERE t.filled),
        count(*) FILTER (WHERE t.failed AND NOT t.filled),
        count(*) FILTER (WHERE NOT t.filled AND NOT t.failed),
        count(*) FILTER (WHERE t.halted AND NOT t.filled AND NOT t.failed),
        count(*) FILTER (WHERE t.filled AND coalesce(t.took_ms, 0) <= 400),
        count(t.took_ms),
        count(*) FILTER (WHERE t.took_ms > 1000),
        avg(t.took_ms),
        percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY t.took_ms)
    FROM unnest(p_windows) AS w (seconds)
    LEFT JOIN timed AS t ON w.seconds = t.seconds
    GROUP BY w.seconds
$$;

-- Of the orders that came to an outcome in each window:
--   order_failure_percent   of those that passed our checks, how many the platform or a venue failed
--   order_refusal_percent   of all but those that met halted trading, how many were refused for what they asked
--   order_latency_*_ms      average, p50, p95, p99 of market orders
--   slow_order_percent      of those, how many took over a second
--   performance_score       percent that were filled, market orders within 400 ms
--   orders_executed         how many had a fill
CREATE OR REPLACE FUNCTION collect_order_figures(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(figure(f.name, '', c.seconds, f.value, f.samples))
        FROM count_orders(
            collected_at(request),
            ARRAY(SELECT jsonb_array_elements_text(request -> 'windows')::integer)
        ) AS c
        CROSS JOIN LATERAL (VALUES
            ('order_failure_percent', 100.0 * c.failed / nullif(c.filled + c.failed, 0), c.filled + c.failed),
            (
                'order_refusal_percent', 100.0 * (c.refused - c.halted) / nullif(c.ended - c.halted, 0),
                c.ended - c.halted
            ),
            ('performance_score', 100.0 * c.good / nullif(c.filled + c.failed, 0), c.filled + c.failed),
            ('orders_executed', c.filled::numeric, 1),
            ('slow_order_percent', 100.0 * c.slow / nullif(c.timed, 0), c.timed),
            ('order_latency_average_ms', c.average_ms, c.timed),
            ('order_latency_p50_ms', c.percentiles_ms[1]::numeric, c.timed),
            ('order_latency_p95_ms', c.percentiles_ms[2]::numeric, c.timed),
            ('order_latency_p99_ms', c.percentiles_ms[3]::numeric, c.timed)
        ) AS f (name, value, samples)
    );
END
$$;

-- Whether an order that came to nothing was refused for what it asked, by its code: no fault of the platform's.
CREATE OR REPLACE FUNCTION order_was_refused(p_code text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(p_code, '') IN (
        'KYC_REQUIRED', 'ACCOUNT_NOT_ACTIVE', 'TRADING_HALTED', 'MARKET_CLOSED', 'RISK_LIMIT_VIOLATION',
        'SLIPPAGE_EXCEEDED', 'INSUFFICIENT_MARGIN', 'INSUFFICIENT_FUNDS', 'INSUFFICIENT_POSITION'
    )
$$;

-- How long the oldest piece of work has waited, in seconds: what prices have touched, events that nobody has pushed,
-- and of each venue the oldest submission whose outcome is not known, and the oldest closing order of a position that
-- is still open, whatever became of the order.
CREATE OR REPLACE FUNCTION collect_queue_figures(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := collected_at(request);
BEGIN
    RETURN (
        SELECT jsonb_agg(figure(f.name, f.subject, 0, waiting_seconds(f.since, v_at), 1))
        FROM (
            SELECT 'trigger_oldest_seconds' AS name, '' AS subject, min(q.touched_at) AS since
            FROM trigger_queue AS q
            UNION ALL
            SELECT 'relay_oldest_seconds', '', min(e.created_at)
            FROM accounts AS a
            LEFT JOIN event_streams AS s ON a.id = s.account_id
            INNER JOIN events AS e
                ON a.user_id = e.user_id AND a.id = e.account_id AND e.sequence = coalesce(s.pushed_sequence, 0) + 1
            WHERE a.last_sequence > coalesce(s.pushed_sequence, 0)
            UNION ALL
            SELECT 'venue_unknown_seconds', v.venue, min(coalesce(r.submitted_at, r.updated_at))
            FROM (SELECT DISTINCT i.venue FROM instruments AS i WHERE i.venue <> 'internal') AS v
            LEFT JOIN venue_routes AS r ON v.venue = r.venue AND r.state = 'unknown'
            GROUP BY v.venue
            UNION ALL
            SELECT 'venue_closing_seconds', v.venue, min(c.created_at)
            FROM (SELECT DISTINCT i.venue FROM instruments AS i WHERE i.venue <> 'internal') AS v
            LEFT JOIN (
                SELECT r.venue, r.created_at
                FROM venue_routes AS r
                INNER JOIN positions AS p ON r.user_id = p.user_id AND r.closes_position_id = p.id
                WHERE p.status = 'open'
            ) AS c ON v.venue = c.venue
            GROUP BY v.venue
        ) AS f
    );
END
$$;

-- price_stale_percent: of the active symbols whose market is open (samples), how many have no quote within its age
-- limit.
CREATE OR REPLACE FUNCTION collect_price_figures(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := collected_at(request);
BEGIN
    RETURN (
        SELECT jsonb_build_array(figure('price_stale_percent', '', 0, 100.0 * count(*) FILTER (
            WHERE q.symbol IS NULL
                OR v_at - least(q.quoted_at, q.received_at) > i.quote_age_ms_max * interval '1 millisecond'
        ) / nullif(count(*), 0), count(*)))
        FROM market_calendars AS c
        INNER JOIN instruments AS i ON c.name = i.calendar
        LEFT JOIN quotes AS q ON i.symbol = q.symbol
        WHERE i.is_active AND c.name = ANY (ARRAY(
            SELECT o.name FROM market_calendars AS o WHERE market_is_open(o.name, v_at)
        ))
    );
END
$$;

-- The server itself: that it answers (database_up), percent of its connections in use, how long ago the watch over
-- margin last came by, and how many breakers of symbols and of the platform nobody has armed again.
CREATE OR REPLACE FUNCTION collect_server_figures(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := collected_at(request);
BEGIN
    RETURN (
        SELECT jsonb_agg(figure(f.name, '', 0, f.value, 1))
        FROM (
            SELECT 'database_up' AS name, 1::numeric AS value
            UNION ALL
            SELECT 'connection_percent', 100 * sum(d.numbackends) / current_setting('max_connections')::numeric
            FROM pg_stat_database AS d
            UNION ALL
            SELECT 'margin_scan_age_seconds', waiting_seconds(m.updated_at, v_at) FROM margin_scan AS m
            UNION ALL
            SELECT 'tripped_breakers', count(*) FILTER (WHERE c.actor = 'circuit_breaker')
            FROM (
                SELECT DISTINCT ON (t.scope, t.symbol) t.actor FROM trading_state_changes AS t
                WHERE t.scope <> 'account'
                ORDER BY t.scope ASC, t.symbol ASC, t.id DESC
            ) AS c
        ) AS f
    );
END
$$;

-- What the platform owes its accounts and has not done, in seconds, by what overdue_work.sql finds: stop-outs, winding
-- down, charging a roll; and rolls_without_rate, how many of an hour ago or more wait for a rate or a quote.
CREATE OR REPLACE FUNCTION collect_duty_figures(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := collected_at(request);
BEGIN
    RETURN (
        SELECT jsonb_agg(figure(f.name, '', 0, f.value, 1))
        FROM (VALUES
            ('stop_out_oldest_seconds', waiting_seconds(stop_out_due_since(v_at), v_at)),
            ('wind_down_oldest_seconds', waiting_seconds(wind_down_due_since(), v_at)),
            ('roll_oldest_seconds', waiting_seconds(roll_due_since(v_at), v_at)),
            ('rolls_without_rate', rolls_without_rate(v_at - interval '1 hour')::numeric)
        ) AS f (name, value)
    );
END
$$;

-- What compares with the past: performance_gain_percent, the score of the last day against the day before it, from the
-- minutes that were kept; release_age_seconds of each release that was first seen in the last two days.
CREATE OR REPLACE FUNCTION collect_history_figures(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := collected_at(request);
BEGIN
    RETURN (
        WITH days AS (
            SELECT s.observed_at > v_at - interval '1 day' AS is_last,
                sum(s.value * s.samples) / sum(s.samples) AS score, sum(s.samples) AS samples
            FROM figure_samples AS s
            WHERE s.figure = 'performance_score' AND s.observed_at <= v_at
                AND s.observed_at > v_at - interval '2 days'
            GROUP BY 1
        )
        SELECT jsonb_agg(figure(f.name, f.subject, f.seconds, f.value, f.samples::bigint))
        FROM (
            SELECT 'performance_gain_percent' AS name, '' AS subject, 86400 AS seconds,
                100 * (n.score / nullif(b.score, 0) - 1) AS value,
                CASE WHEN b.score > 0 THEN least(n.samples, b.samples) ELSE 0 END AS samples
            FROM (VALUES (true)) AS o (ne)
            LEFT JOIN days AS n ON n.is_last
            LEFT JOIN days AS b ON NOT b.is_last
            UNION ALL
            SELECT 'release_age_seconds', r.version, 0, waiting_seconds(r.first_seen_at, v_at), 1
            FROM releases AS r
            WHERE r.first_seen_at > v_at - interval '2 days'
        ) AS f
    );
END
$$;

-- security_score and active_threats, by security_standing.
CREATE OR REPLACE FUNCTION collect_security_figures(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    RETURN (
        SELECT jsonb_agg(figure(f.name, '', 0, f.value, 1))
        FROM security_standing() AS s
        CROSS JOIN LATERAL (VALUES
            ('security_score', s.score), ('active_threats', s.threats::numeric)
        ) AS f (name, value)
    );
END
$$;

GRANT EXECUTE ON FUNCTION collect_order_figures(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION collect_queue_figures(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION collect_price_figures(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION collect_server_figures(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION collect_duty_figures(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION collect_history_figures(jsonb) TO function_alerts;
GRANT EXECUTE ON FUNCTION collect_security_figures(jsonb) TO function_alerts;
-- Reports of the hour count by it too.
GRANT EXECUTE ON FUNCTION count_orders(timestamptz, integer[]) TO trading_procedures;
