-- What an order is judged by besides its account: the instrument with its quote, the user, the limits, the platform.
-- Read with the rights of whoever asks: procedures see every user, reading functions the one that is set.
CREATE OR REPLACE VIEW order_terms WITH (security_invoker = TRUE) AS
SELECT
    r.user_id,
    r.account_id,
    p.email,
    p.kyc_status,
    p.account_status,
    p.account_tier,
    r.max_position_size,
    r.max_positions,
    r.daily_trade_limit,
    r.max_daily_loss,
    s.trading_state AS platform_trading_state,
    s.trade_always,
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
    i.venue
FROM risk_settings AS r
INNER JOIN profiles AS p ON r.user_id = p.id
CROSS JOIN platform_settings AS s
INNER JOIN instruments AS i ON i.is_active
LEFT JOIN quotes AS q ON i.symbol = q.symbol;

ALTER VIEW order_terms OWNER TO trading_procedures;
GRANT SELECT ON order_terms TO trading_readers;
