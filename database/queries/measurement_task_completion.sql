-- Order fill rate: of the orders made from :from up to, not including, :to, how many were executed.
--   psql "$DATABASE_URL" -v from=2026-11-01T00:00Z -v to=2026-12-01T00:00Z \
--       -f database/queries/measurement_task_completion.sql
-- `denied` were refused by our own checks, so they were not valid; `rejected` were valid and came to nothing. Of the
-- valid ones that have come to an end that their trader did not ask for, at least 99 % should be executed.
SELECT
    count(*) AS orders,
    count(*) FILTER (WHERE o.status = 'filled') AS filled,
    count(*) FILTER (WHERE o.status = 'denied') AS denied,
    count(*) FILTER (WHERE o.status = 'rejected') AS rejected,
    count(*) FILTER (WHERE o.status IN ('canceled', 'expired', 'replaced')) AS ended,
    count(*) FILTER (WHERE o.status IN ('pending_new', 'new', 'triggered', 'partially_filled')) AS working,
    round(100.0 * count(*) FILTER (WHERE o.status = 'filled') / nullif(count(*), 0), 2) AS fill_rate_percent,
    round(
        100.0 * count(*) FILTER (WHERE o.status = 'filled')
        / nullif(count(*) FILTER (WHERE o.status IN ('filled', 'rejected')), 0), 2
    ) AS valid_executed_percent
FROM orders AS o
WHERE o.created_at >= (:'from')::timestamptz AND o.created_at < (:'to')::timestamptz;
