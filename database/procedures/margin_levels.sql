-- Margin levels of many accounts in one statement, by the formulas of account_valuation.

-- The fraction of conversion_fraction, NULL where it needs a quote that is missing or too old at p_at.
CREATE OR REPLACE FUNCTION fresh_conversion_fraction(p_from text, p_to text, p_positive boolean, p_at timestamptz)
RETURNS numeric[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN conversion_fraction(p_from, p_to, p_positive, p_at);
EXCEPTION WHEN SQLSTATE 'TR004' THEN
    RETURN NULL;
END
$$;

-- One row for each account of p_account_ids. `unpriced` names a symbol or currency pair without a usable quote; then
-- unrealized_pnl, equity and margin_level are NULL. Levels are percent; margin_level is NULL while no margin is used.
-- `due` is what the account's margin call has come to: 'entered', 'left', or NULL where nothing changes.
--   entered: no call is open and the level is below the threshold. A cash account borrows nothing and gets no call.
--   left: a call is open and the level has come up to the release level that it began with, or nothing is held.
-- `stop_out_due`: the level is at or below the stop-out level, equity at or below zero included; never a cash account.
DROP FUNCTION IF EXISTS margin_levels(uuid[], timestamptz);
CREATE FUNCTION margin_levels(p_account_ids uuid[], p_at timestamptz)
RETURNS TABLE (
    user_id uuid, account_id uuid, balance numeric, unrealized_pnl numeric, equity numeric, margin_used numeric,
    margin_level numeric, unpriced text, threshold numeric, release_level numeric, episode_id uuid, breached boolean,
    due text, stop_out_level numeric, stop_out_due boolean
)
LANGUAGE sql STABLE AS $$
    WITH marks AS MATERIALIZED (
        SELECT
            i.symbol, i.contract_size, i.quote_currency, q.bid, q.ask,
            q.symbol IS NOT NULL
            AND NOT quote_is_stale(q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar, p_at) AS usable
        FROM instruments AS i
        LEFT JOIN quotes AS q USING (symbol)
    ),
    held AS MATERIALIZED (
        SELECT
            a.user_id, a.id AS account_id, a.currency, m.symbol, m.quote_currency, m.usable, p.margin_used,
            CASE p.side WHEN 'long' THEN m.bid - p.entry_price ELSE p.entry_price - m.ask END
            * p.quantity * m.contract_size AS pnl
        FROM accounts AS a
        INNER JOIN positions AS p ON p.user_id = a.user_id AND p.account_id = a.id AND p.status = 'open'
        INNER JOIN marks AS m USING (symbol)
        WHERE a.id = ANY (p_account_ids)
    ),
    rates AS MATERIALIZED (
        SELECT
            c.quote_currency, c.currency, c.positive,
            fresh_conversion_fraction(c.quote_currency, c.currency, c.positive, p_at) AS fraction
        FROM (SELECT DISTINCT h.quote_currency, h.currency, h.pnl > 0 AS positive FROM held AS h WHERE h.usable) AS c
    ),
    totals AS (
        SELECT
            h.user_id, h.account_id, sum(h.margin_used) AS margin_used,
            sum(CASE h.quote_currency WHEN h.currency THEN h.pnl ELSE h.pnl * r.fraction[1] / r.fraction[2] END)
                AS unrealized_pnl,
            min(CASE WHEN NOT h.usable THEN h.symbol WHEN r.fraction IS NULL THEN h.quote_currency || h.currency END)
                AS unpriced
        FROM held AS h
        LEFT JOIN rates AS r
            ON r.quote_currency = h.quote_currency AND r.currency = h.currency AND r.positive = (h.pnl > 0)
        GROUP BY h.user_id, h.account_id
    ),
    worth AS (
        SELECT
            a.user_id, a.id AS account_id, a.kind, a.balance, t.unpriced,
            coalesce(t.margin_used, 0) AS margin_used,
            CASE WHEN t.unpriced IS NULL THEN coalesce(t.unrealized_pnl, 0) END AS unrealized_pnl,
            -- An account without settings is watched by the defaults of their columns.
            coalesce(s.margin_call_threshold, 50) AS threshold,
            coalesce(s.margin_call_threshold, 50) * coalesce(s.margin_call_release_percent, 105) / 100
                AS settings_release_level,
            coalesce(s.stop_out_level, 20) AS stop_out_level,
            e.id AS episode_id, e.release_level AS episode_release_level
        FROM accounts AS a
        LEFT JOIN totals AS t ON t.user_id = a.user_id AND t.account_id = a.id
        LEFT JOIN risk_settings AS s ON s.user_id = a.user_id AND s.account_id = a.id
        LEFT JOIN margin_call_episodes AS e ON e.user_id = a.user_id AND e.account_id = a.id AND e.left_at IS NULL
        WHERE a.id = ANY (p_account_ids)
    )
    SELECT
        w.user_id, w.account_id, w.balance, w.unrealized_pnl, w.balance + w.unrealized_pnl, w.margin_used,
        l.margin_level, w.unpriced, w.threshold, l.release_level, w.episode_id, l.breached,
        CASE
            WHEN w.unpriced IS NOT NULL THEN NULL
            WHEN w.episode_id IS NULL THEN CASE WHEN l.breached THEN 'entered' END
            WHEN l.margin_level IS NULL OR l.margin_level >= l.release_level THEN 'left'
        END,
        w.stop_out_level, w.kind = 'margin' AND coalesce(l.margin_level <= w.stop_out_level, false)
    FROM worth AS w
    CROSS JOIN LATERAL (
        SELECT
            v.margin_level,
            coalesce(w.episode_release_level, w.settings_release_level) AS release_level,
            w.kind = 'margin' AND coalesce(v.margin_level < w.threshold, false) AS breached
        FROM (SELECT (w.balance + w.unrealized_pnl) * 100 / nullif(w.margin_used, 0) AS margin_level) AS v
    ) AS l
$$;

ALTER FUNCTION fresh_conversion_fraction(text, text, boolean, timestamptz) OWNER TO trading_procedures;
ALTER FUNCTION margin_levels(uuid[], timestamptz) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION fresh_conversion_fraction(text, text, boolean, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION margin_levels(uuid[], timestamptz) FROM PUBLIC;
