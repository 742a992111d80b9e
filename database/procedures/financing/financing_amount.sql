SET LOCAL ROLE trading_procedures;

-- What one position is charged or paid for one roll, in account currency, rounded once; negative is charged.
--   percent: quantity x contract size x price x (rate - markup) / 100 x days / (360 or 365), in quote currency
--   points:  quantity x contract size x tick size x (rate - markup) x days
-- p_price is what the position could be closed at: the bid of a long one, the ask of a short one. p_fraction
-- {multiplier, divisor} converts quote -> account. The sources are named in layers/trading/trading/financing.py.
CREATE OR REPLACE FUNCTION financing_amount(
    p_units numeric, p_price numeric, p_tick numeric, p_rate numeric, p_markup numeric, p_days integer, p_basis text,
    p_fraction numeric[], p_currency text
) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    -- One division, at the end: each would round.
    SELECT round_money(
        p_units * CASE p_basis WHEN 'points' THEN p_tick ELSE p_price END * (p_rate - p_markup) * p_days
        * p_fraction[1]
        / (CASE p_basis WHEN 'percent_360' THEN 36000 WHEN 'percent_365' THEN 36500 WHEN 'points' THEN 1 END
            * p_fraction[2]),
        p_currency
    )
$$;
