-- Execution speed by order type, in milliseconds, of the orders submitted from :from up to, not including, :to: from
-- the audit's SUBMITTED to its last FILLED. The row `all` is of every type.
--   psql "$DATABASE_URL" -v from=2026-11-01T00:00Z -v to=2026-12-01T00:00Z \
--       -f database/queries/measurement_latency.sql
-- The rows of one transaction carry one time, at which it took the account's lock. When a row was written stands, to
-- the millisecond, in its id, so that an order executed at once is measured as well: from the lock to its booking.
WITH executed AS (
    SELECT
        s.details ->> 'order_type' AS order_type,
        extract(EPOCH FROM f.filled_at - s.created_at) * 1000 AS milliseconds
    FROM order_audit_log AS s
    INNER JOIN LATERAL (
        SELECT max(greatest(l.created_at, uuid_extract_timestamp(l.id))) AS filled_at
        FROM order_audit_log AS l
        WHERE l.user_id = s.user_id AND l.order_id = s.order_id AND l.action = 'FILLED'
    ) AS f ON f.filled_at IS NOT NULL
    WHERE
        s.action = 'SUBMITTED'
        AND s.created_at >= (:'from')::timestamptz AND s.created_at < (:'to')::timestamptz
)

SELECT
    CASE grouping(e.order_type) WHEN 1 THEN 'all' ELSE e.order_type END AS order_type,
    count(*) AS orders,
    round(avg(e.milliseconds), 3) AS average,
    round(percentile_cont(0.50) WITHIN GROUP (ORDER BY e.milliseconds)::numeric, 3) AS p50,
    round(percentile_cont(0.95) WITHIN GROUP (ORDER BY e.milliseconds)::numeric, 3) AS p95,
    round(percentile_cont(0.99) WITHIN GROUP (ORDER BY e.milliseconds)::numeric, 3) AS p99,
    round(max(e.milliseconds), 3) AS longest
FROM executed AS e
GROUP BY GROUPING SETS ((e.order_type), ())
ORDER BY grouping(e.order_type) DESC, order_type ASC;
