SET LOCAL ROLE trading_procedures;

-- Money into an account, by an operator: ledger, audit and event in one transaction, once per idempotency key.
-- request {version: 1, user_id, account_id, amount, reason?, idempotency_key, actor, actor_id?, request_hash?,
--   request_id?, ip_address?, user_agent?, email?, idempotency_key_days? (30)}
-- -> {outcome: 'booked', entry_id, account_id, entry_type, amount, balance, currency, reason, sequence, transact_time,
--   replayed}
-- Raises TR001 no such account, TR003 key reused, TR006 a value out of its bounds, TR011 the actor's own account.
CREATE OR REPLACE FUNCTION deposit(request jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT move_money(request, 'deposit')
$$;

GRANT EXECUTE ON FUNCTION deposit(jsonb) TO function_operator;
