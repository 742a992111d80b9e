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

-- Of one account, in its currency: {method, scenarios, one_day_95, one_day_99}. Days on which each symbol that is held
-- has a return are scenarios; with fewer than 100 of the last 250 the method is parametric. Rates of conversion are
-- taken as they are. NULL amounts where a position has no quote.
CREATE OR REPLACE FUNCTION account_var(p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_days CONSTANT integer := 250;
    c_scenarios_min CONSTANT integer := 100;
    c_quantile_95 CONSTANT numeric := 1.644854;
    c_quantile_99 CONSTANT numeric := 2.326348;
    v_symbols text [];
    v_values numeric [];
    v_volatilities numeric [];
    v_losses numeric [];
    v_historical boolean;
BEGIN
    SELECT
        coalesce(array_agg(e.symbol ORDER BY e.symbol), '{}'),
        coalesce(array_agg(e.long_value - e.short_value ORDER BY e.symbol), '{}'),
        coalesce(array_agg(i.volatility_average ORDER BY e.symbol), '{}')
    INTO v_symbols, v_values, v_volatilities
    FROM account_exposures(ARRAY[p_account_id]) AS e
    INNER JOIN instruments AS i ON e.symbol = i.symbol;
    SELECT coalesce(array_agg(d.loss), '{}') INTO v_losses
    FROM (
        SELECT -sum(r.daily_return * v_values[array_position(v_symbols, r.symbol)]) AS loss
        FROM daily_returns(v_symbols, c_days) AS r
        GROUP BY r.roll_date
        HAVING count(*) = cardinality(v_symbols)
    ) AS d;
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

DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOREACH v_function IN ARRAY ARRAY[
        'historical_var(numeric[], numeric)',
        'parametric_var(numeric[], numeric[], numeric)',
        'daily_returns(text[], integer)',
        'account_var(uuid)'
    ]::regprocedure [] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO trading_procedures', v_function);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO trading_readers', v_function);
    END LOOP;
END
$$;
