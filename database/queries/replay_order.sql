-- An order's life from the audit alone, and the order as rebuilt from it beside the table's, as one JSON document; null
-- for an id that nobody has.
--   psql "$DATABASE_URL" -v order_id=01a1fc5d-1d64-7e88-9637-cfcbef0b90a9 -f database/queries/replay_order.sql
-- As the owner or compliance. `make replay ORDER=` prints the same as text.
SELECT jsonb_pretty(replay_order(:'order_id'::uuid)) AS replay;
