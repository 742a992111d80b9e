-- Rejection rate by code: of the orders made from :from up to, not including, :to, how many were refused and why, the
-- most frequent first; the row `all` is their sum.
--   psql "$DATABASE_URL" -v from=2026-11-01T00:00Z -v to=2026-12-01T00:00Z \
--       -f database/queries/measurement_error_rate.sql
-- Requests that made no order (malformed, unknown symbol, limited, a fault of ours) are in the functions' metrics.
WITH made AS (
    SELECT CASE WHEN o.status IN ('denied', 'rejected') THEN o.failure_code END AS refused_for
    FROM orders AS o
    WHERE o.created_at >= (:'from')::timestamptz AND o.created_at < (:'to')::timestamptz
)

SELECT
    CASE grouping(m.refused_for) WHEN 1 THEN 'all' ELSE m.refused_for END AS code,
    count(m.refused_for) AS refused,
    (SELECT count(*) FROM made) AS orders,
    round(100.0 * count(m.refused_for) / nullif((SELECT count(*) FROM made), 0), 2) AS percent
FROM made AS m
GROUP BY GROUPING SETS ((m.refused_for), ())
HAVING grouping(m.refused_for) = 1 OR m.refused_for IS NOT NULL
ORDER BY grouping(m.refused_for) DESC, refused DESC, code ASC;
