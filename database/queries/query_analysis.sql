-- How the database finds the last 50 orders of a user with their positions, and which indexes have been used so far.
--   psql "$DATABASE_URL" -v email=gold@example.com -f database/queries/query_analysis.sql
EXPLAIN (ANALYZE, BUFFERS)
SELECT
    o.id,
    o.symbol,
    o.side,
    o.quantity,
    o.status,
    o.average_price,
    o.created_at,
    p.side AS position_side,
    p.quantity AS position_quantity,
    p.entry_price,
    q.bid,
    q.ask
FROM orders AS o
LEFT JOIN positions AS p ON o.user_id = p.user_id AND o.position_id = p.id
LEFT JOIN quotes AS q ON o.symbol = q.symbol
WHERE
    o.user_id = (
        SELECT u.id FROM profiles AS u
        WHERE u.email = :'email'
    )
ORDER BY o.id DESC
LIMIT 50;

SELECT
    s.relname AS table_name,
    s.indexrelname AS index_name,
    s.idx_scan AS scans,
    s.last_idx_scan AS last_scan,
    pg_size_pretty(pg_relation_size(s.indexrelid)) AS size
FROM pg_stat_user_indexes AS s
WHERE
    s.schemaname = 'public'
    AND s.relname IN ('orders', 'positions', 'fills', 'order_audit_log', 'ledger_entries', 'profiles', 'quotes')
ORDER BY s.relname ASC, s.idx_scan DESC, s.indexrelname ASC;
