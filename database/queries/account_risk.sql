-- What the accounts of a user risk: exposure by symbol and currency, value at risk, drawdown; a JSON document each.
--   psql "$DATABASE_URL" -v email=gold@example.com -f database/queries/account_risk.sql
-- As the owner or compliance. `make account-risk EMAIL=` prints the same. docs/risk.md says what the figures mean.
SELECT
    a.id AS account_id,
    jsonb_pretty(get_account_risk(a.user_id, a.id)) AS risk
FROM profiles AS p
INNER JOIN accounts AS a ON p.id = a.user_id
WHERE p.email = lower(:'email')
ORDER BY a.id;
