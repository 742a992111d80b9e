-- What happened to every order from :from up to, not including, :to, in the order in which it happened: trader, order,
-- action, timestamp, reason. As compliance.
--   psql "$DATABASE_URL" --csv -v from=2026-11-01T00:00Z -v to=2026-12-01T00:00Z \
--       -f database/queries/execution_report.sql
-- `make execution-report FROM=2026-11-01 TO=2026-11-30` writes it as CSV (RFC 4180).
SELECT -- noqa: ST06
    l.user_id AS trader_id,
    l.order_id,
    l.action,
    to_char(l.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS timestamp, -- noqa: RF04
    l.reason
FROM order_audit_log AS l
WHERE
    l.order_id IS NOT NULL
    AND l.created_at >= (:'from')::timestamptz AND l.created_at < (:'to')::timestamptz
ORDER BY l.created_at, l.account_id, l.version;
