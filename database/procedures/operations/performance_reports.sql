SET LOCAL ROLE trading_procedures;

-- Reports of the hour: what count_orders says of the orders that ended in it, kept once the hour is over.

-- Writes the reports of the hours that are over and have none: since the last that has one, else of the last hour; of
-- at most hours_max. An hour is left alone for a minute, until what ended in it has been committed.
-- request {version: 1, at?, hours_max}; answer {kept: n}. Safe to repeat, and to run twice at once.
CREATE OR REPLACE FUNCTION keep_performance_reports(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    c_hour CONSTANT interval := '1 hour';
    c_settled CONSTANT interval := '1 minute';
    c_kept CONSTANT interval := '400 days';
    v_at timestamptz := coalesce((request ->> 'at')::timestamptz, clock_timestamp());
    v_last timestamptz := date_trunc('hour', v_at - c_settled, 'UTC') - c_hour;
    v_known timestamptz := (SELECT max(r.hour_start) FROM performance_reports AS r);
    v_kept bigint;
BEGIN
    PERFORM check_request_version(request);
    INSERT INTO performance_reports (
        hour_start, total_orders, executed_orders, refused_orders, failed_orders, latency_average_ms, latency_p50_ms,
        latency_p95_ms, latency_p99_ms
    )
    SELECT
        h.hour_start, c.ended, c.filled, c.ended - c.filled - c.failed, c.failed,
        coalesce(round(c.average_ms, 3), 0), coalesce(round(c.percentiles_ms[1]::numeric, 3), 0),
        coalesce(round(c.percentiles_ms[2]::numeric, 3), 0), coalesce(round(c.percentiles_ms[3]::numeric, 3), 0)
    FROM generate_series(
        greatest(coalesce(v_known + c_hour, v_last), v_last - ((request ->> 'hours_max')::integer - 1) * c_hour),
        v_last, c_hour
    ) AS h (hour_start)
    -- The window of an hour ends with its last microsecond.
    CROSS JOIN LATERAL count_orders(h.hour_start + c_hour - interval '1 microsecond', ARRAY[3600]) AS c
    ORDER BY h.hour_start
    ON CONFLICT (hour_start) DO NOTHING;
    GET DIAGNOSTICS v_kept = ROW_COUNT;
    DELETE FROM performance_reports WHERE hour_start < v_at - c_kept;
    RETURN jsonb_build_object('kept', v_kept);
END
$$;

GRANT EXECUTE ON FUNCTION keep_performance_reports(jsonb) TO function_alerts;

SET LOCAL ROLE trading_readers;

-- The newest first. request {version: 1, before?: id, limit}
-- -> {reports: [{id, hour_start, total_orders, executed_orders, refused_orders, failed_orders, error_rate: failed of
--   all in percent with 2 decimals, latency_ms: {average, p50, p95, p99} of market orders, orders_per_hour,
--   orders_per_minute, orders_per_second: of those executed}], next: id or null}; numbers as text, but the counts
CREATE OR REPLACE FUNCTION list_performance_reports(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_limit integer := (request ->> 'limit')::integer;
    v_ids uuid [];
BEGIN
    v_ids := ARRAY(
        SELECT r.id FROM performance_reports AS r
        WHERE request ->> 'before' IS NULL OR r.id < (request ->> 'before')::uuid
        ORDER BY r.id DESC
        LIMIT v_limit + 1
    );
    RETURN jsonb_build_object('next', CASE WHEN cardinality(v_ids) > v_limit THEN v_ids[v_limit] END, 'reports', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', r.id, 'hour_start', utc_text(r.hour_start), 'total_orders', r.total_orders,
            'executed_orders', r.executed_orders, 'refused_orders', r.refused_orders, 'failed_orders', r.failed_orders,
            'error_rate', round(coalesce(100.0 * r.failed_orders / nullif(r.total_orders, 0), 0), 2)::text,
            'latency_ms', jsonb_build_object(
                'average', r.latency_average_ms::text, 'p50', r.latency_p50_ms::text, 'p95', r.latency_p95_ms::text,
                'p99', r.latency_p99_ms::text
            ),
            'orders_per_hour', r.executed_orders::text,
            'orders_per_minute', round(r.executed_orders / 60.0, 2)::text,
            'orders_per_second', round(r.executed_orders / 3600.0, 2)::text
        ) ORDER BY r.id DESC), '[]')
        FROM performance_reports AS r WHERE r.id = ANY (v_ids[1:v_limit])
    ));
END
$$;

GRANT EXECUTE ON FUNCTION list_performance_reports(jsonb) TO function_incidents;
