SET LOCAL ROLE trading_procedures;

-- What an account is worth: computed from its rows and the quotes, never from a stored figure.

-- Open positions with their mark (longs at bid, shorts at ask) and P&L in quote and in account currency.
-- `stale` says that the quote is too old at p_at while its market is open. p_at NULL: any age will do (display).
CREATE OR REPLACE FUNCTION valued_positions(p_user_id uuid, p_account_id uuid, p_at timestamptz DEFAULT NULL)
RETURNS TABLE (
    position_id uuid, order_id uuid, symbol text, side text, quantity numeric, entry_price numeric,
    current_price numeric, quote_currency text, pnl numeric, unrealized_pnl numeric, margin_used numeric,
    stop_loss numeric, take_profit numeric, commission_paid numeric, realized_pnl numeric, created_at timestamptz,
    updated_at timestamptz, stale boolean
)
LANGUAGE sql STABLE AS $$
    SELECT
        m.id, m.order_id, m.symbol, m.side, m.quantity, m.entry_price, m.mark, m.quote_currency, m.pnl,
        CASE
            WHEN m.quote_currency = a.currency THEN m.pnl
            ELSE convert_amount(m.pnl, m.quote_currency, a.currency, p_at)
        END,
        m.margin_used, m.stop_loss, m.take_profit, m.commission_paid, m.realized_pnl, m.created_at, m.updated_at,
        m.stale
    FROM accounts AS a
    CROSS JOIN LATERAL (
        SELECT
            p.*,
            i.quote_currency,
            CASE p.side WHEN 'long' THEN q.bid ELSE q.ask END AS mark,
            CASE p.side WHEN 'long' THEN q.bid - p.entry_price ELSE p.entry_price - q.ask END
            * p.quantity * i.contract_size AS pnl,
            p_at IS NOT NULL
            AND quote_is_stale(q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar, p_at) AS stale
        FROM positions AS p
        INNER JOIN instruments AS i USING (symbol)
        LEFT JOIN quotes AS q USING (symbol)
        WHERE p.user_id = a.user_id AND p.account_id = a.id AND p.status = 'open'
    ) AS m
    WHERE a.user_id = p_user_id AND a.id = p_account_id
$$;

-- margin_used is what the positions were booked with less hedged_margin_credit, what of it hedges need not hold.
-- margin_level is NULL while no margin is used; what depends on P&L is NULL while a position has no quote. `stale`
-- names a symbol whose quote is too old, else NULL. coverable_longs: there are longs of a symbol whose hedges need
-- less, so that shorts of it may cover them; coverable_shorts likewise; NULL where nothing is held.
-- p_account is the row as it is now: for who has it anyway.
CREATE OR REPLACE FUNCTION account_worth(p_account accounts, p_at timestamptz)
RETURNS TABLE (
    balance numeric, unrealized_pnl numeric, equity numeric, margin_used numeric, free_margin numeric,
    margin_level numeric, open_positions bigint, stale text, hedged_margin_credit numeric, coverable_longs boolean,
    coverable_shorts boolean
)
LANGUAGE sql STABLE AS $$
    SELECT
        p_account.balance,
        v.unrealized_pnl,
        p_account.balance + v.unrealized_pnl,
        v.booked - v.credit,
        p_account.balance + v.unrealized_pnl - (v.booked - v.credit),
        (p_account.balance + v.unrealized_pnl) * 100 / nullif(v.booked - v.credit, 0),
        v.open_positions,
        v.stale,
        v.credit,
        v.coverable_longs,
        v.coverable_shorts
    FROM (
        SELECT
            -- Not known while a quote is missing, rather than the sum of the others.
            CASE count(*) WHEN count(m.pnl) THEN coalesce(sum(m.pnl), 0) END AS unrealized_pnl,
            coalesce(sum(p.margin_used), 0) AS booked,
            count(*) AS open_positions,
            bool_or(p.side = 'long' AND i.hedged_margin_percent < 100) AS coverable_longs,
            bool_or(p.side = 'short' AND i.hedged_margin_percent < 100) AS coverable_shorts,
            -- Who holds one side alone is not asked.
            CASE
                WHEN bool_or(p.side = 'long' AND i.hedged_margin_percent < 100)
                    AND bool_or(p.side = 'short' AND i.hedged_margin_percent < 100)
                    THEN account_margin_credit(p_account.user_id, p_account.id, p_account.currency)
                ELSE 0
            END AS credit,
            min(p.symbol) FILTER (
                WHERE p_at IS NOT NULL
                AND quote_is_stale(q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar, p_at)
            ) AS stale
        FROM positions AS p
        INNER JOIN instruments AS i USING (symbol)
        LEFT JOIN quotes AS q USING (symbol)
        CROSS JOIN LATERAL (
            SELECT CASE p.side WHEN 'long' THEN q.bid - p.entry_price ELSE p.entry_price - q.ask END
                * p.quantity * i.contract_size AS quoted
        ) AS g
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN i.quote_currency = p_account.currency THEN g.quoted
                ELSE convert_amount(g.quoted, i.quote_currency, p_account.currency, p_at)
            END AS pnl
        ) AS m
        WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
    ) AS v
$$;

DROP FUNCTION IF EXISTS account_valuation(uuid, uuid, timestamptz);
CREATE FUNCTION account_valuation(p_user_id uuid, p_account_id uuid, p_at timestamptz DEFAULT NULL)
RETURNS TABLE (
    balance numeric, unrealized_pnl numeric, equity numeric, margin_used numeric, free_margin numeric,
    margin_level numeric, open_positions bigint, stale text, hedged_margin_credit numeric, coverable_longs boolean,
    coverable_shorts boolean
)
LANGUAGE sql STABLE AS $$
    SELECT w.*
    FROM accounts AS a
    CROSS JOIN LATERAL account_worth(a, p_at) AS w
    WHERE a.user_id = p_user_id AND a.id = p_account_id
$$;

GRANT EXECUTE ON FUNCTION valued_positions(uuid, uuid, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION account_worth(accounts, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION account_valuation(uuid, uuid, timestamptz) TO trading_readers;
