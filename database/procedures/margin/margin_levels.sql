SET LOCAL ROLE trading_procedures;

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

-- What the open positions of each of p_account_ids come to; no row for one that has none. `unpriced` names a symbol or
-- currency pair without a usable quote; then unrealized_pnl means nothing.
-- Marks and rates are worked out first, once each: all of them for many accounts, those that are needed for few. Only
-- who may hold a hedge is asked what it need not hold: each symbol whose hedges need less is one of 31 bits, that of
-- its shorts stands 31 above it, and an account has to have both.
DROP FUNCTION IF EXISTS open_worths(uuid[], timestamptz);
CREATE FUNCTION open_worths(p_account_ids uuid[], p_at timestamptz)
RETURNS TABLE (
    account_id uuid, margin_used numeric, unrealized_pnl numeric, open_positions bigint, unpriced text,
    hedged_margin_credit numeric
)
LANGUAGE sql STABLE AS $$
    WITH marks AS MATERIALIZED (
        SELECT
            i.symbol, i.contract_size, i.quote_currency, q.bid, q.ask,
            CASE WHEN i.hedged_margin_percent < 100 THEN 1::bigint << (row_number() OVER () % 31)::integer END AS bit,
            q.symbol IS NOT NULL
            AND NOT quote_is_stale(q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar, p_at) AS usable
        FROM instruments AS i
        LEFT JOIN quotes AS q USING (symbol)
        WHERE cardinality(p_account_ids) > 100 OR i.symbol IN (
            SELECT p.symbol FROM accounts AS a
            INNER JOIN positions AS p ON a.user_id = p.user_id AND a.id = p.account_id AND p.status = 'open'
            WHERE a.id = ANY (p_account_ids)
        )
    ),
    rates AS MATERIALIZED (
        SELECT
            c.quote_currency, c.currency, c.positive,
            CASE WHEN c.quote_currency <> c.currency THEN r.fraction[1] END AS multiplier,
            CASE WHEN c.quote_currency <> c.currency THEN r.fraction[2] END AS divisor,
            CASE WHEN r.fraction IS NULL THEN c.quote_currency || c.currency END AS unpriced
        FROM (
            SELECT m.quote_currency, a.currency, s.positive
            FROM (SELECT DISTINCT quote_currency FROM marks WHERE usable) AS m
            CROSS JOIN (SELECT DISTINCT currency FROM accounts WHERE id = ANY (p_account_ids)) AS a
            CROSS JOIN (VALUES (true), (false)) AS s (positive)
        ) AS c
        CROSS JOIN LATERAL (
            SELECT fresh_conversion_fraction(c.quote_currency, c.currency, c.positive, p_at) AS fraction
        ) AS r
    )
    SELECT s.id, s.booked - s.credit, s.unrealized_pnl, s.open_positions, s.unpriced, s.credit
    FROM (
        SELECT
            a.id, sum(p.margin_used) AS booked,
            sum(CASE WHEN r.multiplier IS NULL THEN g.pnl ELSE g.pnl * r.multiplier / r.divisor END) AS unrealized_pnl,
            count(*) AS open_positions, min(CASE WHEN m.usable THEN r.unpriced ELSE m.symbol END) AS unpriced,
            CASE
                WHEN bit_or(g.bit) & (bit_or(g.bit) >> 31) <> 0
                    THEN account_margin_credit(any_value(a.user_id), a.id, any_value(a.currency))
                ELSE 0
            END AS credit
        FROM accounts AS a
        INNER JOIN positions AS p ON a.user_id = p.user_id AND a.id = p.account_id AND p.status = 'open'
        INNER JOIN marks AS m ON p.symbol = m.symbol
        CROSS JOIN LATERAL (
            SELECT CASE p.side WHEN 'long' THEN m.bid - p.entry_price ELSE p.entry_price - m.ask END
                * p.quantity * m.contract_size AS pnl,
                CASE p.side WHEN 'long' THEN m.bit ELSE m.bit << 31 END AS bit
        ) AS g
        LEFT JOIN rates AS r
            ON m.quote_currency = r.quote_currency AND a.currency = r.currency AND r.positive = (g.pnl > 0)
        WHERE a.id = ANY (p_account_ids)
        GROUP BY a.id
    ) AS s
$$;

-- Percent, as an account is judged by it; NULL while it holds nothing that needs margin. What is covered whole may
-- need none: then it is 0 once the equity is below zero.
CREATE OR REPLACE FUNCTION judged_level(p_equity numeric, p_margin_used numeric, p_open_positions bigint)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_margin_used > 0 THEN p_equity * 100 / p_margin_used
        WHEN p_open_positions > 0 AND p_equity < 0 THEN 0
    END
$$;

-- How bad a level is: by its threshold, and where two are the same, by what it does. The worst sorts first.
CREATE OR REPLACE FUNCTION level_rank(p_action text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_action WHEN 'stop_out' THEN 0 WHEN 'call' THEN 1 ELSE 2 END
$$;

-- The worst level at which p_margin_level stands, all NULL above all of them. One that the account has come to is left
-- at its release level only: p_episode, NULL outside of one, says where it stands, and that level keeps the terms by
-- which it began.
CREATE OR REPLACE FUNCTION standing_level(
    p_margin_level numeric, p_profile text, p_call_threshold numeric, p_call_release_percent numeric,
    p_stop_out_threshold numeric, p_episode margin_call_episodes,
    OUT name text, OUT action text, OUT threshold numeric, OUT release_level numeric
)
LANGUAGE sql STABLE AS $$
    SELECT l.name, l.action, l.threshold, l.release_level
    FROM (
        SELECT l.name, l.action, t.threshold, t.threshold * CASE l.action
            WHEN 'call' THEN p_call_release_percent ELSE l.release_percent
        END / 100 AS release_level
        FROM margin_profile_levels AS l
        CROSS JOIN LATERAL (
            SELECT CASE l.action
                WHEN 'call' THEN p_call_threshold WHEN 'stop_out' THEN p_stop_out_threshold ELSE l.threshold
            END AS threshold
        ) AS t
        WHERE l.profile = p_profile AND l.name IS DISTINCT FROM p_episode.level_name
        UNION ALL
        SELECT p_episode.level_name, p_episode.level_action, p_episode.threshold, p_episode.release_level
        WHERE p_episode.id IS NOT NULL
    ) AS l
    WHERE CASE l.action WHEN 'stop_out' THEN p_margin_level <= l.threshold ELSE p_margin_level < l.threshold END
        OR (
            (l.threshold, level_rank(l.action)) >= (p_episode.threshold, level_rank(p_episode.level_action))
            AND p_margin_level < l.release_level
        )
    ORDER BY l.threshold, level_rank(l.action)
    LIMIT 1
$$;

-- One row for each account of p_account_ids. `unpriced` names a symbol or currency pair without a usable quote; then
-- unrealized_pnl, equity and margin_level are NULL. Levels are percent; margin_level is that of judged_level.
-- `breached`: the margin level is below a threshold. level_name, level_action, threshold and release_level are of the
-- level that the account is to stand at, as standing_level has it; of the one that it leaves where `due` is 'left'.
-- `due` is what the account's episode has come to, NULL where nothing changes:
--   entered: it is in none and stands at a level now · escalated, eased: at a worse one than before, at a milder one ·
--   left: at none any more, or nothing is held.
-- `stop_out_due`: the level is at or below the stop-out level, equity at or below zero included. A stop-out that closes
-- no more than it takes brings it up to stop_out_release_level.
DROP FUNCTION IF EXISTS margin_levels(uuid[], timestamptz);
CREATE FUNCTION margin_levels(p_account_ids uuid[], p_at timestamptz)
RETURNS TABLE (
    user_id uuid, account_id uuid, balance numeric, unrealized_pnl numeric, equity numeric, margin_used numeric,
    margin_level numeric, open_positions bigint, unpriced text, episode_id uuid, breached boolean, due text,
    level_name text, level_action text, threshold numeric, release_level numeric, stop_out_level numeric,
    stop_out_due boolean, stop_out_release_level numeric, stop_out_policy text, hedged_margin_credit numeric
)
LANGUAGE sql STABLE AS $$
    SELECT
        t.user_id, t.account_id, t.balance, v.unrealized_pnl, t.balance + v.unrealized_pnl,
        coalesce(w.margin_used, 0), v.margin_level, coalesce(w.open_positions, 0), w.unpriced, e.id, coalesce(
            v.margin_level < t.outermost OR v.margin_level <= t.stop_out_threshold, false
        ),
        CASE
            WHEN w.unpriced IS NOT NULL OR (e.id IS NULL AND s.name IS NULL) THEN NULL
            WHEN e.id IS NULL THEN 'entered'
            WHEN s.name IS NULL THEN 'left'
            WHEN s.name = e.level_name THEN NULL
            WHEN (s.threshold, level_rank(s.action)) < (e.threshold, level_rank(e.level_action)) THEN 'escalated'
            ELSE 'eased'
        END,
        coalesce(s.name, e.level_name), coalesce(s.action, e.level_action), coalesce(s.threshold, e.threshold),
        coalesce(s.release_level, e.release_level), t.stop_out_threshold,
        coalesce(v.margin_level <= t.stop_out_threshold, false),
        t.stop_out_threshold * t.stop_out_release_percent / 100, t.stop_out_policy,
        coalesce(w.hedged_margin_credit, 0)
    FROM margin_terms(p_account_ids) AS t
    LEFT JOIN open_worths(p_account_ids, p_at) AS w ON t.account_id = w.account_id
    LEFT JOIN margin_call_episodes AS e
        ON t.user_id = e.user_id AND t.account_id = e.account_id AND e.left_at IS NULL
    CROSS JOIN LATERAL (
        SELECT
            u.unrealized_pnl,
            judged_level(t.balance + u.unrealized_pnl, w.margin_used, w.open_positions) AS margin_level
        FROM (SELECT CASE WHEN w.unpriced IS NULL THEN coalesce(w.unrealized_pnl, 0) END AS unrealized_pnl) AS u
    ) AS v
    LEFT JOIN LATERAL (
        SELECT l.*
        FROM standing_level(
            v.margin_level, t.profile, t.call_threshold, t.call_release_percent, t.stop_out_threshold, e
        ) AS l
        WHERE v.margin_level <= t.outermost OR e.id IS NOT NULL
        -- Kept as a query of its own, so that those who are fine are not asked.
        OFFSET 0
    ) AS s ON true
$$;
