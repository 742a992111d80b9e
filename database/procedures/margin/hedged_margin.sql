SET LOCAL ROLE trading_procedures;

-- Hedged margin: longs and shorts of one symbol on one account cover each other. Positions keep the margin that they
-- were booked with; what of it the account need not hold is worked out of its rows each time, and called the credit.
-- trading/hedges.py holds the same formula for previews; a property test holds the two equal.

-- The credit of one symbol, in account currency, rounded once. The smaller side's lots are covered; of the margin of
-- either side its covered share counts, and of both shares p_percent are held:
--   (long margin x covered / long lots + short margin x covered / short lots) x (100 - p_percent) / 100
-- As one fraction, because one of the two shares is the whole side. 0 without lots on one side.
CREATE OR REPLACE FUNCTION hedged_margin_credit(
    p_percent numeric, p_long_quantity numeric, p_long_margin numeric, p_short_quantity numeric,
    p_short_margin numeric, p_currency text
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(round_money(
        (p_long_margin * p_short_quantity + p_short_margin * p_long_quantity) * (100 - p_percent)
        / nullif(100 * greatest(p_long_quantity, p_short_quantity), 0), p_currency
    ), 0)
$$;

-- What of one side's lots the other does not cover.
CREATE OR REPLACE FUNCTION uncovered_quantity(p_side text, p_long_quantity numeric, p_short_quantity numeric)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT greatest(0, CASE p_side
        WHEN 'long' THEN p_long_quantity - p_short_quantity ELSE p_short_quantity - p_long_quantity
    END)
$$;

-- What an account holds of each symbol on either side: lots, and their margin as booked.
CREATE OR REPLACE FUNCTION symbol_sides(p_user_id uuid, p_account_id uuid)
RETURNS TABLE (
    symbol text, long_quantity numeric, long_margin numeric, short_quantity numeric, short_margin numeric
)
LANGUAGE sql STABLE AS $$
    SELECT
        p.symbol,
        coalesce(sum(p.quantity) FILTER (WHERE p.side = 'long'), 0),
        coalesce(sum(p.margin_used) FILTER (WHERE p.side = 'long'), 0),
        coalesce(sum(p.quantity) FILTER (WHERE p.side = 'short'), 0),
        coalesce(sum(p.margin_used) FILTER (WHERE p.side = 'short'), 0)
    FROM positions AS p
    WHERE p.user_id = p_user_id AND p.account_id = p_account_id AND p.status = 'open'
    GROUP BY p.symbol
$$;

-- The credit of all that an account holds.
CREATE OR REPLACE FUNCTION account_margin_credit(p_user_id uuid, p_account_id uuid, p_currency text) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(hedged_margin_credit(
        i.hedged_margin_percent, s.long_quantity, s.long_margin, s.short_quantity, s.short_margin, p_currency
    )), 0)
    FROM symbol_sides(p_user_id, p_account_id) AS s
    INNER JOIN instruments AS i USING (symbol)
$$;

-- By how much the credit changes with p_quantity lots more that are bought or sold, as p_side says, for p_margin; with
-- less of them where both are below zero. 0 where nothing of the symbol is held.
CREATE OR REPLACE FUNCTION margin_credit_change(
    p_account accounts, p_terms order_terms, p_side text, p_quantity numeric, p_margin numeric
) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(
        hedged_margin_credit(
            p_terms.hedged_margin_percent, s.long_quantity + a.longs * p_quantity, s.long_margin + a.longs * p_margin,
            s.short_quantity + a.shorts * p_quantity, s.short_margin + a.shorts * p_margin, p_account.currency
        ) - hedged_margin_credit(
            p_terms.hedged_margin_percent, s.long_quantity, s.long_margin, s.short_quantity, s.short_margin,
            p_account.currency
        )
    ), 0)
    FROM symbol_sides(p_account.user_id, p_account.id) AS s
    CROSS JOIN (SELECT (p_side = 'buy')::integer AS longs, (p_side = 'sell')::integer AS shorts) AS a
    WHERE s.symbol = p_terms.symbol
$$;

GRANT EXECUTE ON FUNCTION hedged_margin_credit(numeric, numeric, numeric, numeric, numeric, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION uncovered_quantity(text, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION symbol_sides(uuid, uuid) TO trading_readers;
GRANT EXECUTE ON FUNCTION account_margin_credit(uuid, uuid, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION margin_credit_change(accounts, order_terms, text, numeric, numeric) TO trading_readers;
