SET LOCAL ROLE trading_procedures;

-- What an order is judged by besides its account: the instrument with its quote, the user, the limits, the platform.
-- Read with the rights of whoever asks: procedures see every user, reading functions the one that is set. New columns
-- come last.
CREATE OR REPLACE VIEW order_terms WITH (security_invoker = TRUE) AS
SELECT -- noqa: ST06
    r.user_id,
    r.account_id,
    r.email,
    r.kyc_status,
    r.account_status,
    r.account_tier,
    r.max_position_size,
    r.max_positions,
    r.daily_trade_limit,
    r.max_daily_loss,
    -- One row, each by itself: a join would carry all the other columns one level further.
    (SELECT s.trading_state FROM platform_settings AS s) AS platform_trading_state,
    (SELECT s.trade_always FROM platform_settings AS s) AS trade_always,
    i.symbol,
    i.asset_class,
    i.base_currency,
    i.quote_currency,
    i.contract_size,
    i.quantity_min,
    i.quantity_max,
    i.quantity_step,
    i.tick_size,
    i.leverage,
    i.slippage_base,
    i.slippage_min,
    i.slippage_max,
    i.slippage_volatility_multiplier,
    i.slippage_step,
    i.slippage_liquidity_base,
    i.slippage_after_hours_multiplier,
    i.slippage_variation,
    i.volatility_average,
    i.daily_volume,
    i.commission_per_unit,
    i.commission_min,
    i.commission_max,
    i.quote_age_ms_max,
    i.calendar,
    i.trading_state AS instrument_trading_state,
    q.bid,
    q.ask,
    q.quoted_at,
    q.received_at,
    q.source,
    q.volatility,
    i.venue,
    r.max_order_quantity,
    r.max_order_notional,
    r.max_working_orders,
    r.max_exposure,
    r.max_concentration_percent,
    r.concentration_from_exposure,
    r.order_rate_limit,
    r.order_rate_window_s,
    r.duplicate_window_ms,
    r.max_drawdown_percent,
    r.stop_loss_required,
    r.stop_loss_min_percent,
    r.stop_loss_max_percent,
    r.price_collar_percent,
    array_position(r.restricted_symbols, i.symbol) IS NOT NULL AS is_restricted,
    -- The profile's cap of this symbol, else of its asset class; not looked for without a profile.
    CASE WHEN r.leverage_profile IS NOT NULL THEN (
        SELECT c.leverage FROM leverage_caps AS c
        WHERE c.profile = r.leverage_profile AND c.asset_class = i.asset_class AND c.symbol IN ('', i.symbol)
        ORDER BY c.symbol DESC LIMIT 1
    ) END AS leverage_cap,
    i.hedged_margin_percent
FROM effective_limits AS r
INNER JOIN instruments AS i ON i.is_active
LEFT JOIN quotes AS q ON i.symbol = q.symbol;

GRANT SELECT ON order_terms TO trading_readers;
