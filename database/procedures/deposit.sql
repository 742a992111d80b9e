-- Money into an account, by an operator: ledger, audit and event in one transaction, once per idempotency key.
-- request {version: 1, user_id, account_id, amount, reason?, idempotency_key, actor, actor_id?, request_hash?,
--   request_id?, ip_address?, user_agent?, email?, idempotency_key_days? (30)}
-- -> {outcome: 'booked', entry_id, account_id, entry_type, amount, balance, currency, reason, sequence, transact_time,
--   replayed}
-- Raises TR001 no such account, TR003 key reused, TR006 a value out of its bounds, TR011 the actor's own account.
CREATE OR REPLACE FUNCTION deposit(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_opened record;
    v_amount numeric;
BEGIN
    SELECT * INTO v_opened FROM open_operator_request(request, 'deposit');
    IF v_opened.answer IS NOT NULL THEN
        RETURN v_opened.answer || '{"replayed": true}';
    END IF;
    PERFORM check_reason(request, false);
    v_amount := requested_amount(request, (v_opened.account).currency, false);
    RETURN '{"replayed": false}' || book_money(
        request, v_opened.account, v_opened.request_hash, 'deposit', v_amount, clock_timestamp()
    );
END
$$;

ALTER FUNCTION deposit(jsonb) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION deposit(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION deposit(jsonb) TO function_operator;
