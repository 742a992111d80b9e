-- Why orders of a user are refused for margin, as one JSON document; null for an address that nobody has.
--   psql "$DATABASE_URL" -v email=gold@example.com -f database/queries/diagnose_margin.sql
-- As the owner or compliance. `make diagnose EMAIL=` prints the same as text.
SELECT jsonb_pretty(diagnose_margin(:'email')) AS diagnosis;
