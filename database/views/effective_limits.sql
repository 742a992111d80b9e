SET LOCAL ROLE trading_procedures;

-- The limits that bind an account: its own, else its tier's. NULL does not bind.
CREATE OR REPLACE VIEW effective_limits WITH (security_invoker = TRUE) AS
SELECT
    r.user_id,
    r.account_id,
    p.account_tier,
    p.email,
    p.kyc_status,
    p.account_status,
    CASE
        WHEN array_position(r.unlimited, 'max_order_quantity') IS NULL
            THEN coalesce(r.max_order_quantity, d.max_order_quantity)
    END AS max_order_quantity,
    CASE
        WHEN array_position(r.unlimited, 'max_order_notional') IS NULL
            THEN coalesce(r.max_order_notional, d.max_order_notional)
    END AS max_order_notional,
    CASE
        WHEN array_position(r.unlimited, 'max_position_size') IS NULL
            THEN coalesce(r.max_position_size, d.max_position_size)
    END AS max_position_size,
    CASE
        WHEN array_position(r.unlimited, 'max_positions') IS NULL
            THEN coalesce(r.max_positions, d.max_positions)
    END AS max_positions,
    CASE
        WHEN array_position(r.unlimited, 'max_working_orders') IS NULL
            THEN coalesce(r.max_working_orders, d.max_working_orders)
    END AS max_working_orders,
    CASE
        WHEN array_position(r.unlimited, 'max_exposure') IS NULL
            THEN coalesce(r.max_exposure, d.max_exposure)
    END AS max_exposure,
    CASE
        WHEN array_position(r.unlimited, 'max_concentration_percent') IS NULL
            THEN coalesce(r.max_concentration_percent, d.max_concentration_percent)
    END AS max_concentration_percent,
    coalesce(r.concentration_from_exposure, d.concentration_from_exposure, 0) AS concentration_from_exposure,
    CASE
        WHEN array_position(r.unlimited, 'order_rate_limit') IS NULL
            THEN coalesce(r.order_rate_limit, d.order_rate_limit)
    END AS order_rate_limit,
    coalesce(r.order_rate_window_s, d.order_rate_window_s, 60) AS order_rate_window_s,
    CASE
        WHEN array_position(r.unlimited, 'duplicate_window_ms') IS NULL
            THEN coalesce(r.duplicate_window_ms, d.duplicate_window_ms)
    END AS duplicate_window_ms,
    CASE
        WHEN array_position(r.unlimited, 'daily_trade_limit') IS NULL
            THEN coalesce(r.daily_trade_limit, d.daily_trade_limit)
    END AS daily_trade_limit,
    CASE
        WHEN array_position(r.unlimited, 'max_daily_loss') IS NULL
            THEN coalesce(r.max_daily_loss, d.max_daily_loss)
    END AS max_daily_loss,
    CASE
        WHEN array_position(r.unlimited, 'max_drawdown_percent') IS NULL
            THEN coalesce(r.max_drawdown_percent, d.max_drawdown_percent)
    END AS max_drawdown_percent,
    CASE
        WHEN array_position(r.unlimited, 'max_losses_in_a_row') IS NULL
            THEN coalesce(r.max_losses_in_a_row, d.max_losses_in_a_row)
    END AS max_losses_in_a_row,
    coalesce(r.stop_loss_required, d.stop_loss_required, FALSE) AS stop_loss_required,
    CASE
        WHEN array_position(r.unlimited, 'stop_loss_min_percent') IS NULL
            THEN coalesce(r.stop_loss_min_percent, d.stop_loss_min_percent)
    END AS stop_loss_min_percent,
    CASE
        WHEN array_position(r.unlimited, 'stop_loss_max_percent') IS NULL
            THEN coalesce(r.stop_loss_max_percent, d.stop_loss_max_percent)
    END AS stop_loss_max_percent,
    CASE
        WHEN array_position(r.unlimited, 'price_collar_percent') IS NULL
            THEN coalesce(r.price_collar_percent, d.price_collar_percent)
    END AS price_collar_percent,
    -- An account's own come on top of its tier's.
    r.restricted_symbols || d.restricted_symbols AS restricted_symbols,
    CASE
        WHEN array_position(r.unlimited, 'leverage_profile') IS NULL
            THEN coalesce(r.leverage_profile, d.leverage_profile)
    END AS leverage_profile,
    coalesce(r.day_time_zone, d.day_time_zone) AS day_time_zone,
    coalesce(r.day_start_hour, d.day_start_hour) AS day_start_hour
FROM risk_settings AS r
INNER JOIN profiles AS p ON r.user_id = p.id
INNER JOIN risk_defaults AS d ON p.account_tier = d.tier;

GRANT SELECT ON effective_limits TO trading_readers;
