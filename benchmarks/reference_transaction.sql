-- The writes that an executed order cannot avoid, with no logic: what execute_order_atomic is measured against.
-- 1 account update, order, fill, position, ledger row, idempotency row, 4 audit rows in one statement, 1 event row. The
-- rows have the columns and the sizes of an order's own, with constants in place of what an order would work out.
CREATE OR REPLACE FUNCTION reference_transaction(p_user_id uuid, p_account_id uuid, p_key text) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_order_id uuid := uuidv7();
    v_position_id uuid := uuidv7();
    v_fill_id uuid := uuidv7();
    v_transaction_id text := 'txn_1795677475_' || v_fill_id;
    v_number bigint;
    v_at timestamptz := clock_timestamp();
BEGIN
    UPDATE accounts SET
        balance = balance - 0.00, last_sequence = last_sequence + 1, ledger_version = ledger_version + 1,
        audit_version = audit_version + 4, audit_head = sha256(''), updated_at = v_at
    WHERE user_id = p_user_id AND id = p_account_id
    RETURNING last_sequence INTO v_number;
    INSERT INTO orders (
        user_id, id, account_id, symbol, order_type, side, quantity, time_in_force, status, filled_quantity,
        leaves_quantity, last_price, average_price, slippage, commission, total_cost, position_id, transaction_id,
        idempotency_key, request_id, created_at, updated_at, executed_at
    ) VALUES (
        p_user_id, v_order_id, p_account_id, 'EURUSD', 'market', 'buy', 0.01, 'gtc', 'filled', 0.01, 0, 1.10026,
        1.10026, 0.00006, 0.00, 11.00, v_position_id, v_transaction_id, p_key, p_key, v_at, v_at, v_at
    );
    INSERT INTO positions (
        user_id, id, account_id, order_id, symbol, side, quantity, opened_quantity, entry_price, margin_used,
        commission_paid, transaction_id, created_at, updated_at
    ) VALUES (
        p_user_id, v_position_id, p_account_id, v_order_id, 'EURUSD', 'long', 0.01, 0.01, 1.10026, 11.00, 0.00,
        v_transaction_id, v_at, v_at
    );
    INSERT INTO fills (
        user_id, id, order_id, account_id, position_id, symbol, side, quantity, price, commission, realized_pnl,
        venue, trade_id, transact_time
    ) VALUES (
        p_user_id, v_fill_id, v_order_id, p_account_id, v_position_id, 'EURUSD', 'buy', 0.01, 1.10026, 0.00, 0,
        'internal', v_fill_id::text, v_at
    );
    INSERT INTO ledger_entries (
        user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id, position_id,
        created_at
    ) VALUES (
        p_user_id, p_account_id, v_number, 'commission', 0.00, 10000000, 'USD', v_order_id, v_fill_id, v_position_id,
        v_at
    );
    INSERT INTO order_audit_log (
        user_id, account_id, version, order_id, action, status, details, pii_digest, previous_hash, hash, hash_version,
        created_at
    )
    SELECT
        p_user_id, p_account_id, v_number * 4 + e.place, v_order_id, e.action, e.status, e.details,
        CASE e.place WHEN 1 THEN sha256('') END, sha256(''), sha256(''), 1, v_at
    FROM (VALUES
        (1, 'SUBMITTED', 'pending_new', '{
            "side": "buy", "symbol": "EURUSD", "quantity": "0.01", "order_type": "market", "time_in_force": "gtc",
            "request_id": "72ad4eef-7343-47dc-90e4-960894403c9c",
            "request_hash": "72ad4eef-7343-47dc-90e4-960894403c9c",
            "idempotency_key": "72ad4eef-7343-47dc-90e4-960894403c9c"
        }'::jsonb),
        (2, 'APPROVED', 'pending_new', '{"margin": 11.00, "reduces": false, "commission": 0.00}'),
        (3, 'EXECUTED', 'pending_new', '{
            "ask": 1.1002, "bid": 1.1000, "venue": "internal", "source": "manual",
            "quoted_at": "2026-11-26T07:17:55.410290Z", "slippage": {
                "base": 0.2, "draw": 0.552821, "pips": 0.60633852, "size_factor": 1, "volatility_factor": 3.0,
                "after_hours_factor": 1,
                "seed": "01a216b7-d266-7fe0-b776-df45589d7110:72ad4eef-7343-47dc-90e4-960894403c9c"
            }
        }'),
        (4, 'FILLED', 'filled', '{
            "price": 1.10026, "fill_id": "01a216b7-d290-7004-b79c-8d3b3789b891", "quantity": 0.01, "commission": 0.00,
            "realized_pnl": 0, "balance_after": 10000000.00,
            "transaction_id": "txn_1795677475_01a216b7-d290-7004-b79c-8d3b3789b891", "position": {
                "side": "long", "status": "open", "symbol": "EURUSD", "quantity": 0.01, "stop_loss": null,
                "entry_price": 1.10026, "margin_used": 11.00, "take_profit": null, "realized_pnl": 0,
                "position_id": "01a216b7-d290-7039-8308-25f95e148574"
            }
        }')
    ) AS e (place, action, status, details);
    INSERT INTO events (user_id, account_id, sequence, event_type, payload, request_id, created_at)
    VALUES (p_user_id, p_account_id, v_number, 'order.filled', '{
        "fills": [{
            "price": 1.10026, "fill_id": "01a216b7-d290-7004-b79c-8d3b3789b891",
            "order_id": "01a216b7-d28f-7fb0-947c-4fe8b9150f50", "quantity": 0.01,
            "trade_id": "01a216b7-d290-7004-b79c-8d3b3789b891", "total_filled": 0.01,
            "transact_time": "2026-11-26T07:17:55.464378Z", "leaves_quantity": 0
        }],
        "orders": [{
            "side": "buy", "status": "pending_new", "symbol": "EURUSD", "quantity": 0.01, "order_type": "market",
            "order_id": "01a216b7-d28f-7fb0-947c-4fe8b9150f50", "client_order_id": null, "filled_quantity": 0
        }, {
            "side": "buy", "status": "filled", "symbol": "EURUSD", "quantity": 0.01, "order_type": "market",
            "order_id": "01a216b7-d28f-7fb0-947c-4fe8b9150f50", "executed_at": "2026-11-26T07:17:55.464378Z",
            "average_price": 1.10026, "client_order_id": null, "filled_quantity": 0.01
        }],
        "account": {
            "equity": 9999999.74, "balance": 10000000.00, "currency": "USD", "free_margin": 9999988.74,
            "account_id": "01a216b7-d266-7fe0-b776-df45589d7110", "margin_used": 11.00, "margin_level": 90909088.55,
            "unrealized_pnl": -0.26
        },
        "positions": [{
            "side": "long", "status": "open", "symbol": "EURUSD", "quantity": 0.01, "entry_price": 1.10026,
            "margin_used": 11.00, "position_id": "01a216b7-d290-7039-8308-25f95e148574", "realized_pnl": 0,
            "current_price": 1.1000, "unrealized_pnl": -0.26
        }]
    }', p_key, v_at);
    INSERT INTO idempotency_keys (user_id, account_id, idempotency_key, request_hash, answer, created_at, expires_at)
    VALUES (p_user_id, p_account_id, p_key, p_key, '{
        "side": "buy", "margin": 11.00, "status": "filled", "symbol": "EURUSD", "outcome": "filled", "currency": "USD",
        "order_id": "01a216b7-d28f-7fb0-947c-4fe8b9150f50", "quantity": 0.01, "sequence": 2, "slippage": 0.00006,
        "account_id": "01a216b7-d266-7fe0-b776-df45589d7110", "commission": 0.00, "order_type": "market",
        "total_cost": 11.00, "position_id": "01a216b7-d290-7039-8308-25f95e148574", "realized_pnl": 0,
        "transact_time": "2026-11-26T07:17:55.464378Z", "client_order_id": null, "execution_price": 1.10026,
        "transaction_id": "txn_1795677475_01a216b7-d290-7004-b79c-8d3b3789b891"
    }', v_at, v_at + interval '30 days');
    RETURN v_order_id;
END
$$;
GRANT EXECUTE ON FUNCTION reference_transaction(uuid, uuid, text) TO function_trader;
