SET LOCAL ROLE trading_procedures;

-- What a fill costs: slippage, commission and margin, computed here for every procedure that fills.
-- trading/pricing.py and trading/margin.py hold the same formulas for previews; a property test holds them equal.

-- The seeded draw in [0, 1], to six places: the first 32 bits of the seed's sha256.
CREATE OR REPLACE FUNCTION slippage_draw(p_seed text) RETURNS numeric
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT round(
        ('x' || substr(encode(sha256(convert_to(p_seed, 'UTF8')), 'hex'), 1, 8))::bit(32)::bigint::numeric
        / 4294967296, 6
    )
$$;

-- Price and slippage of p_quantity at market. In pips, before it becomes a price: base x volatility factor x size
-- factor x after-hours factor x variation, at least the minimum, at most twice the maximum.
CREATE OR REPLACE FUNCTION price_order(
    p_terms order_terms, p_side text, p_quantity numeric, p_seed text, p_after_hours boolean
) RETURNS order_fill
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fill order_fill;
    v_volatility numeric := greatest(1, round(
        p_terms.volatility * p_terms.slippage_volatility_multiplier / p_terms.volatility_average, 6
    ));
    v_size_ratio numeric := round(
        p_quantity * 100 / (p_terms.daily_volume * p_terms.slippage_liquidity_base), 6
    );
    v_size numeric := greatest(1, round(sqrt(v_size_ratio * v_size_ratio * v_size_ratio), 6));
    v_after_hours numeric := CASE WHEN p_after_hours THEN p_terms.slippage_after_hours_multiplier ELSE 1 END;
    v_draw numeric := slippage_draw(p_seed);
    v_pips numeric;
    v_reference numeric := CASE p_side WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END;
BEGIN
    v_pips := p_terms.slippage_base * v_volatility * v_size * v_after_hours
        * (1 + p_terms.slippage_variation * (2 * v_draw - 1));
    v_pips := least(greatest(v_pips, p_terms.slippage_min), 2 * p_terms.slippage_max);
    v_fill.price := greatest(p_terms.tick_size, round_to_tick(
        v_reference + CASE p_side WHEN 'buy' THEN 1 ELSE -1 END * v_pips * p_terms.slippage_step, p_terms.tick_size
    ));
    v_fill.slippage := trim_scale(abs(v_fill.price - v_reference));
    v_fill.slippage_details := jsonb_build_object(
        'seed', p_seed, 'draw', v_draw, 'base', p_terms.slippage_base, 'volatility_factor', v_volatility,
        'size_factor', v_size, 'after_hours_factor', v_after_hours, 'pips', v_pips
    );
    RETURN v_fill;
END
$$;

-- In the instrument's quote currency, not rounded: per unit, times the tier's factor, within the bounds.
CREATE OR REPLACE FUNCTION order_commission(p_terms order_terms, p_quantity numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_terms.commission_per_unit = 0 THEN 0
        ELSE least(p_terms.commission_max, greatest(
            p_terms.commission_min,
            p_terms.commission_per_unit * p_quantity * CASE p_terms.account_tier
                WHEN 'silver' THEN 0.9 WHEN 'gold' THEN 0.8 WHEN 'platinum' THEN 0.7 ELSE 1.0
            END
        ))
    END
$$;

-- The margin of a position opened at p_price, in account currency, rounded once: what it is worth, over the leverage.
CREATE OR REPLACE FUNCTION order_margin(
    p_account accounts, p_terms order_terms, p_quantity numeric, p_price numeric, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN round_money(exposure_amount(
        p_terms.asset_class, p_terms.base_currency, p_terms.quote_currency, p_quantity * p_terms.contract_size,
        p_price, p_account.currency, p_at
    ) / CASE p_account.kind
        WHEN 'cash' THEN 1
        -- The account's profile may cap it; NULL does not.
        ELSE least(p_account.leverage, p_terms.leverage, p_terms.leverage_cap)
    END, p_account.currency);
END
$$;

-- What p_units are worth at p_price in account currency, not rounded. Forex: in the base currency; others: x price, in
-- the quote currency.
CREATE OR REPLACE FUNCTION exposure_amount(
    p_asset_class text, p_base text, p_quote text, p_units numeric, p_price numeric, p_currency text,
    p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE
        WHEN p_asset_class = 'forex' AND p_base = p_currency THEN p_units
        WHEN p_quote = p_currency THEN p_units * p_price
        WHEN p_asset_class = 'forex' THEN convert_amount(p_units, p_base, p_currency, p_at)
        ELSE convert_amount(p_units * p_price, p_quote, p_currency, p_at)
    END;
END
$$;

GRANT EXECUTE ON FUNCTION exposure_amount(
    text, text, text, numeric, numeric, text, timestamptz
) TO trading_readers;
-- What prices an order that rests prices its preview.
GRANT EXECUTE ON FUNCTION order_commission(order_terms, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION order_margin(accounts, order_terms, numeric, numeric, timestamptz) TO trading_readers;
