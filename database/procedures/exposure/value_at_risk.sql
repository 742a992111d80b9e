SET LOCAL ROLE trading_procedures;

-- Value at risk: what an account's open positions lose in a day no more than with a given confidence, by their values
-- now. The same in the layer: trading/value_at_risk.py, which names the sources.

-- The loss that is not exceeded in p_level (a fraction) of the scenarios, never below zero; NULL without scenarios.
CREATE OR REPLACE FUNCTION historical_var(p_losses numeric[], p_level numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(0, percentile_disc(p_level::double precision) WITHIN GROUP (ORDER BY l.loss))
    FROM unnest(p_losses) AS l (loss)
    HAVING count(*) > 0
$$;

-- By the volatilities of the symbols alone, each against the account at once: no diversification is counted on.
-- p_quantile is of the standard normal distribution.
CREATE OR REPLACE FUNCTION parametric_var(p_values numeric[], p_volatilities numeric[], p_quantile numeric)
RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(sum(abs(v.value) * v.volatility), 0) * p_quantile
    FROM unnest(p_values, p_volatilities) AS v (value, volatility)
$$;

-- Returns of the mid from one roll to the next, of the last p_days of each symbol.
CREATE OR REPLACE FUNCTION daily_returns(p_symbols text[], p_days integer)
RETURNS TABLE (symbol text, roll_date date, daily_return numeric)
LANGUAGE sql STABLE AS $$
    SELECT c.symbol, c.roll_date, c.mid / c.mid_before - 1
    FROM unnest(p_symbols) AS s (symbol)
    CROSS JOIN LATERAL (
        SELECT
            r.symbol, r.roll_date, (q.bid + q.ask) / 2 AS mid,
            lag((q.bid + q.ask) / 2) OVER (ORDER BY r.roll_date) AS mid_before
        FROM (
            SELECT i.symbol, i.roll_date, i.rolled_at FROM instrument_rolls AS i
            WHERE i.symbol = s.symbol
            ORDER BY i.roll_date DESC
            LIMIT p_days + 1
        ) AS r
        CROSS JOIN LATERAL quote_before(r.symbol, r.rolled_at) AS q
    ) AS c
    WHERE c.mid_before IS NOT NULL
$$;

-- What an account holds of each symbol, as its value at risk looks at it, in account currency; NULL amounts where a
-- position has no quote.
CREATE OR REPLACE FUNCTION held_risks(p_account_id uuid) RETURNS held_risk[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(
        ROW(e.symbol, i.quote_currency, e.long_value - e.short_value, g.unrealized_pnl)::held_risk ORDER BY e.symbol
    ), '{}')
    FROM account_exposures(ARRAY[p_account_id]) AS e
    INNER JOIN instruments AS i ON e.symbol = i.symbol
    CROSS JOIN LATERAL (
        SELECT CASE count(*) WHEN count(v.unrealized_pnl) THEN sum(v.unrealized_pnl) END AS unrealized_pnl
        FROM valued_positions(e.user_id, e.account_id) AS v
        WHERE v.symbol = e.symbol
    ) AS g
$$;

-- The pairs by which amounts of p_from become p_to, as conversion_fraction takes them: the pair, or the reverse one, or
-- a cross through USD. None for one currency.
CREATE OR REPLACE FUNCTION conversion_pairs(p_from text, p_to text) RETURNS TABLE (symbol text, reverse boolean)
LANGUAGE sql STABLE AS $$
    WITH legs AS (
        SELECT l.* FROM (
            VALUES (1, p_from, p_to), (2, p_from, 'USD'), (2, 'USD', p_to)
        ) AS l (way, sold, bought)
        WHERE p_from <> p_to
    ),
    quoted AS (
        SELECT l.way, l.sold, l.bought, i.symbol, i.symbol <> l.sold || l.bought AS reverse,
            row_number() OVER (PARTITION BY l.way, l.sold ORDER BY i.symbol = l.sold || l.bought DESC) AS place
        FROM legs AS l
        INNER JOIN instruments AS i ON i.symbol IN (l.sold || l.bought, l.bought || l.sold)
        INNER JOIN quotes AS q ON i.symbol = q.symbol
    )
    SELECT q.symbol, q.reverse FROM quoted AS q
    WHERE q.place = 1 AND q.way = (SELECT min(f.way) FROM quoted AS f)
$$;

-- What each day of the last p_days would lose the positions of now: of each symbol its value times the day's return,
-- and what it has gained or lost so far at the day's change of the rate, all in account currency. One row for each day
-- that tells of every symbol that is held and of every rate.
CREATE OR REPLACE FUNCTION scenario_losses(p_held held_risk[], p_currency text, p_days integer)
RETURNS TABLE (roll_date date, loss numeric)
LANGUAGE sql STABLE AS $$
    WITH held AS MATERIALIZED (
        SELECT h.* FROM unnest(p_held) AS h
    ),
    pairs AS MATERIALIZED (
        SELECT c.currency, p.symbol, p.reverse
        FROM (SELECT DISTINCT h.currency FROM held AS h) AS c
        CROSS JOIN LATERAL conversion_pairs(c.currency, p_currency) AS p
    ),
    returns AS MATERIALIZED (
        SELECT r.* FROM daily_returns(ARRAY(
            SELECT h.symbol FROM held AS h UNION SELECT p.symbol FROM pairs AS p
        ), p_days) AS r
    ),
    rates AS (
        SELECT
            p.currency, r.roll_date,
            array_agg(CASE WHEN p.reverse THEN 1 / (1 + r.daily_return) ELSE 1 + r.daily_return END) AS changes
        FROM pairs AS p
        INNER JOIN returns AS r ON p.symbol = r.symbol
        GROUP BY p.currency, r.roll_date
        HAVING count(*) = (SELECT count(*) FROM pairs AS a WHERE a.currency = p.currency)
    )
    SELECT r.roll_date, -sum(h.value * r.daily_return * c.change + h.unrealized_pnl * (c.change - 1))
    FROM held AS h
    INNER JOIN returns AS r ON h.symbol = r.symbol
    LEFT JOIN rates AS x ON h.currency = x.currency AND r.roll_date = x.roll_date
    CROSS JOIN LATERAL (
        SELECT CASE h.currency WHEN p_currency THEN 1 ELSE x.changes[1] * coalesce(x.changes[2], 1) END AS change
    ) AS c
    WHERE c.change IS NOT NULL
    GROUP BY r.roll_date
    HAVING count(*) = cardinality(p_held)
$$;

-- Of one account, in its currency: {method, scenarios, one_day_95, one_day_99}. Days on which each symbol that is held,
-- and each rate that converts what it gains, has a return are scenarios; with fewer than 100 of the last 250 the method
-- is parametric. NULL amounts where a position has no quote.
CREATE OR REPLACE FUNCTION account_var(p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_days CONSTANT integer := 250;
    c_scenarios_min CONSTANT integer := 100;
    c_quantile_95 CONSTANT numeric := 1.644854;
    c_quantile_99 CONSTANT numeric := 2.326348;
    v_currency text;
    v_held held_risk [];
    v_values numeric [];
    v_volatilities numeric [];
    v_losses numeric [];
    v_historical boolean;
BEGIN
    SELECT a.currency INTO STRICT v_currency FROM accounts AS a WHERE a.id = p_account_id;
    v_held := held_risks(p_account_id);
    SELECT coalesce(array_agg(s.loss), '{}') INTO v_losses FROM scenario_losses(v_held, v_currency, c_days) AS s;
    -- Of what was gained or lost in another currency the rate's volatility counts, of a cross that of both pairs.
    SELECT coalesce(array_agg(p.value), '{}'), coalesce(array_agg(p.volatility), '{}') INTO v_values, v_volatilities
    FROM (
        SELECT h.value, i.volatility_average AS volatility
        FROM unnest(v_held) AS h
        INNER JOIN instruments AS i ON h.symbol = i.symbol
        UNION ALL
        SELECT g.amount, i.volatility_average
        FROM (
            SELECT h.currency, sum(h.unrealized_pnl) AS amount FROM unnest(v_held) AS h GROUP BY h.currency
        ) AS g
        CROSS JOIN LATERAL conversion_pairs(g.currency, v_currency) AS c
        INNER JOIN instruments AS i ON c.symbol = i.symbol
    ) AS p;
    v_historical := cardinality(v_losses) >= c_scenarios_min;
    RETURN jsonb_build_object(
        'method', CASE WHEN v_historical THEN 'historical' ELSE 'parametric' END,
        'scenarios', CASE WHEN v_historical THEN cardinality(v_losses) ELSE 0 END,
        'one_day_95', CASE
            WHEN array_position(v_values, NULL) IS NOT NULL THEN NULL
            WHEN v_historical THEN historical_var(v_losses, 0.95)
            ELSE parametric_var(v_values, v_volatilities, c_quantile_95)
        END,
        'one_day_99', CASE
            WHEN array_position(v_values, NULL) IS NOT NULL THEN NULL
            WHEN v_historical THEN historical_var(v_losses, 0.99)
            ELSE parametric_var(v_values, v_volatilities, c_quantile_99)
        END
    );
END
$$;

GRANT EXECUTE ON FUNCTION historical_var(numeric[], numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION parametric_var(numeric[], numeric[], numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION daily_returns(text[], integer) TO trading_readers;
GRANT EXECUTE ON FUNCTION conversion_pairs(text, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION held_risks(uuid) TO trading_readers;
GRANT EXECUTE ON FUNCTION scenario_losses(held_risk[], text, integer) TO trading_readers;
GRANT EXECUTE ON FUNCTION account_var(uuid) TO trading_readers;
