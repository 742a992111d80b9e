-- Money into an account, by an operator: ledger, audit and event in one transaction, once per idempotency key.
-- request {version: 1, user_id, account_id, amount, reason, idempotency_key, actor, request_id?,
--   idempotency_key_days? (30)}
-- -> {entry_id, account_id, amount, balance, currency, sequence, transact_time, replayed}
CREATE OR REPLACE FUNCTION deposit(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_amount numeric := (request ->> 'amount')::numeric;
    v_hash text := encode(sha256(convert_to((request - ARRAY['idempotency_key', 'idempotency_key_days', 'request_id'])::text, 'UTF8')), 'hex');
    v_answer jsonb;
    v_at timestamptz;
    v_entry_id uuid := uuidv7();
    v_head bytea;
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    v_answer := replayed_answer(v_account.user_id, v_account.id, request ->> 'idempotency_key', v_hash);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer || '{"replayed": true}';
    END IF;
    IF v_amount IS NULL OR NOT (v_amount > 0 AND v_amount < 'Infinity')
        OR v_amount <> round_money(v_amount, v_account.currency) THEN
        PERFORM refuse_value('amount', request ->> 'amount', 'positive, in whole minor units of ' || v_account.currency);
    END IF;
    v_at := clock_timestamp();

    INSERT INTO ledger_entries (
        user_id, id, account_id, entry_number, entry_type, amount, balance_after, currency, reason, created_at
    ) VALUES (
        v_account.user_id, v_entry_id, v_account.id, v_account.ledger_version + 1, 'deposit', v_amount,
        v_account.balance + v_amount, v_account.currency, request ->> 'reason', v_at
    );
    v_head := append_audit(v_account, NULL, ARRAY[ROW(
        'DEPOSITED', NULL, jsonb_build_object(
            'entry_id', v_entry_id, 'amount', v_amount, 'balance_after', v_account.balance + v_amount,
            'actor', request ->> 'actor'
        ), request ->> 'reason', NULL
    )::audit_entry], v_at);
    UPDATE accounts SET
        balance = balance + v_amount,
        ledger_version = ledger_version + 1,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 1,
        audit_head = v_head,
        updated_at = v_at
    WHERE user_id = v_account.user_id AND id = v_account.id;
    PERFORM append_event(
        v_account, v_account.last_sequence + 1, 'account.deposited', jsonb_build_object('account', (
            SELECT account_fact(v_account, v.balance, v.unrealized_pnl, v.margin_used)
            FROM account_valuation(v_account.user_id, v_account.id) AS v
        )), request ->> 'request_id', v_at
    );
    v_answer := jsonb_build_object(
        'entry_id', v_entry_id, 'account_id', v_account.id, 'amount', v_amount,
        'balance', v_account.balance + v_amount, 'currency', v_account.currency,
        'sequence', v_account.last_sequence + 1, 'transact_time', utc_text(v_at)
    );
    PERFORM keep_answer(
        v_account, request ->> 'idempotency_key', v_hash, v_answer,
        coalesce((request ->> 'idempotency_key_days')::integer, 30), v_at
    );
    RETURN v_answer || '{"replayed": false}';
END
$$;

ALTER FUNCTION deposit(jsonb) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION deposit(jsonb) FROM PUBLIC;
