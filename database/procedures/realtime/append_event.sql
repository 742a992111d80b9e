SET LOCAL ROLE trading_procedures;

-- The outbox row of an account transaction. The caller holds the account's lock, has put the next sequence on the
-- account's row and hands it over; the relay pushes it after commit. Returns the sequence.
DROP FUNCTION IF EXISTS append_event(accounts, bigint, text, jsonb, text, timestamptz);
CREATE FUNCTION append_event(
    p_account accounts, p_sequence bigint, p_event_type text, p_payload jsonb, p_request_id text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (user_id, account_id, sequence, event_type, payload, request_id, created_at)
    VALUES (p_account.user_id, p_account.id, p_sequence, p_event_type, p_payload, p_request_id, p_at);
    RETURN p_sequence;
END
$$;

-- The account as its owner is told about it, in account currency. p_margin_used: with p_hedged_margin_credit taken off.
CREATE OR REPLACE FUNCTION account_fact(
    p_account accounts, p_balance numeric, p_unrealized_pnl numeric, p_margin_used numeric,
    p_hedged_margin_credit numeric
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'account_id', p_account.id,
        'currency', p_account.currency,
        'balance', p_balance,
        'unrealized_pnl', round_money(p_unrealized_pnl, p_account.currency),
        'equity', round_money(p_balance + p_unrealized_pnl, p_account.currency),
        'margin_used', p_margin_used,
        'hedged_margin_credit', p_hedged_margin_credit,
        'free_margin', round_money(p_balance + p_unrealized_pnl - p_margin_used, p_account.currency),
        'margin_level', round((p_balance + p_unrealized_pnl) * 100 / nullif(p_margin_used, 0), 2)
    );
END
$$;
