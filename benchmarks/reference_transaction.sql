-- The writes that an executed order cannot avoid, with no logic: what execute_order_atomic is measured against.
-- 1 account update, order, fill, position, ledger row, idempotency row, 4 audit rows in one statement, 1 event row.
CREATE OR REPLACE FUNCTION reference_transaction(p_user_id uuid, p_account_id uuid, p_key text) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_order_id uuid := uuidv7();
    v_position_id uuid := uuidv7();
    v_fill_id uuid := uuidv7();
    v_number bigint;
    v_at timestamptz := clock_timestamp();
BEGIN
    UPDATE accounts SET
        last_sequence = last_sequence + 1, ledger_version = ledger_version + 1, audit_version = audit_version + 4,
        updated_at = v_at
    WHERE user_id = p_user_id AND id = p_account_id
    RETURNING last_sequence INTO v_number;
    INSERT INTO orders (
        user_id, id, account_id, symbol, order_type, side, quantity, status, filled_quantity, leaves_quantity,
        average_price, position_id, idempotency_key, created_at, updated_at, executed_at
    ) VALUES (
        p_user_id, v_order_id, p_account_id, 'EURUSD', 'market', 'buy', 0.01, 'filled', 0.01, 0, 1.1, v_position_id,
        p_key, v_at, v_at, v_at
    );
    INSERT INTO positions (
        user_id, id, account_id, order_id, symbol, side, quantity, opened_quantity, entry_price, margin_used,
        created_at, updated_at
    ) VALUES (
        p_user_id, v_position_id, p_account_id, v_order_id, 'EURUSD', 'long', 0.01, 0.01, 1.1, 11, v_at, v_at
    );
    INSERT INTO fills (
        user_id, id, order_id, account_id, position_id, symbol, side, quantity, price, venue, trade_id, transact_time
    ) VALUES (
        p_user_id, v_fill_id, v_order_id, p_account_id, v_position_id, 'EURUSD', 'buy', 0.01, 1.1, 'internal',
        v_fill_id::text, v_at
    );
    INSERT INTO ledger_entries (
        user_id, account_id, entry_number, entry_type, amount, balance_after, currency, order_id, fill_id, position_id,
        created_at
    ) VALUES (
        p_user_id, p_account_id, v_number, 'commission', 0, 100000, 'USD', v_order_id, v_fill_id, v_position_id, v_at
    );
    INSERT INTO order_audit_log (
        user_id, account_id, version, order_id, action, status, details, previous_hash, hash, hash_version, created_at
    )
    SELECT
        p_user_id, p_account_id, v_number * 4 + n, v_order_id, 'FILLED', 'filled',
        '{"symbol": "EURUSD", "side": "buy", "quantity": 0.01, "price": 1.1, "venue": "internal"}',
        sha256(''), sha256(''), 1, v_at
    FROM generate_series(1, 4) AS n;
    INSERT INTO events (user_id, account_id, sequence, event_type, payload, created_at)
    VALUES (
        p_user_id, p_account_id, v_number, 'order.filled',
        jsonb_build_object('order_id', v_order_id, 'position_id', v_position_id, 'fill_id', v_fill_id), v_at
    );
    INSERT INTO idempotency_keys (user_id, account_id, idempotency_key, request_hash, answer, created_at, expires_at)
    VALUES (
        p_user_id, p_account_id, p_key, 'reference', jsonb_build_object('order_id', v_order_id), v_at,
        v_at + interval '30 days'
    );
    RETURN v_order_id;
END
$$;
GRANT EXECUTE ON FUNCTION reference_transaction(uuid, uuid, text) TO function_trader;
