-- Realized P&L of netting accounts by first in, first out, beside the weighted average that is booked: of what was
-- closed from :from up to, not including, :to, by account and symbol. As compliance.
--   psql "$DATABASE_URL" -v from=2026-11-01T00:00Z -v to=2026-12-01T00:00Z -f database/queries/realized_pnl_fifo.sql
-- `make realized-pnl FROM=2026-11-01 TO=2026-11-30` prints the same. fifo, weighted_average and difference are in the
-- symbol's quote currency, not rounded; booked is what the ledger has, in account currency. Over a position's whole
-- life the two ways come to the same.
WITH traded AS (
    SELECT
        f.*,
        (f.side = 'buy') = (p.side = 'long') AS opens,
        CASE p.side WHEN 'long' THEN 1 ELSE -1 END AS direction,
        -- Of what the position opened, or of what it closed: where this fill ends.
        sum(f.quantity) OVER (
            PARTITION BY f.user_id, f.position_id, (f.side = 'buy') = (p.side = 'long')
            ORDER BY f.transact_time, f.id
        ) AS upto
    FROM fills AS f
    INNER JOIN positions AS p ON f.user_id = p.user_id AND f.position_id = p.id
    INNER JOIN accounts AS a ON f.user_id = a.user_id AND f.account_id = a.id
    WHERE a.position_mode = 'netting'
),

closed AS (
    SELECT
        c.account_id,
        c.symbol,
        c.quantity,
        c.realized_pnl,
        c.direction * c.quantity * (c.price - (l.details -> 'position' ->> 'entry_price')::numeric) AS average,
        (
            SELECT
                sum(
                    c.direction * (c.price - o.price)
                    * (least(c.upto, o.upto) - greatest(c.upto - c.quantity, o.upto - o.quantity))
                )
            FROM traded AS o
            WHERE
                o.user_id = c.user_id AND o.position_id = c.position_id AND o.opens
                AND o.upto > c.upto - c.quantity AND o.upto - o.quantity < c.upto
        ) AS fifo
    FROM traded AS c
    -- What a position cost on average stands in the audit of each fill.
    INNER JOIN order_audit_log AS l
        ON
            c.user_id = l.user_id AND c.order_id = l.order_id AND l.action = 'FILLED'
            AND c.id = (l.details ->> 'fill_id')::uuid
    WHERE NOT c.opens AND c.transact_time >= (:'from')::timestamptz AND c.transact_time < (:'to')::timestamptz
)

SELECT -- noqa: ST06
    c.account_id,
    c.symbol,
    count(*) AS closing_fills,
    sum(c.quantity) AS quantity,
    i.quote_currency,
    trim_scale(sum(c.fifo) * i.contract_size) AS fifo,
    trim_scale(sum(c.average) * i.contract_size) AS weighted_average,
    trim_scale((sum(c.fifo) - sum(c.average)) * i.contract_size) AS difference,
    a.currency,
    sum(c.realized_pnl) AS booked
FROM closed AS c
INNER JOIN accounts AS a ON c.account_id = a.id
INNER JOIN instruments AS i ON c.symbol = i.symbol
GROUP BY c.account_id, c.symbol, i.quote_currency, i.contract_size, a.currency
ORDER BY c.account_id, c.symbol;
