SET LOCAL ROLE trading_procedures;

-- Negative balance protection: what trading took below zero is brought back to zero, once nothing is open any more.

-- Accounts that protect_balance would act on: {accounts: [{user_id, account_id}]}, at most limit of them. It reads
-- every account: an index on balances would be written with every fill.
-- request {version: 1, limit}
CREATE OR REPLACE FUNCTION find_unprotected_balances(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    RETURN jsonb_build_object('accounts', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('user_id', f.user_id, 'account_id', f.id)), '[]')
        FROM (
            SELECT a.user_id, a.id FROM accounts AS a
            WHERE a.balance < 0 AND protected_debt(a) > 0
            ORDER BY a.user_id, a.id
            LIMIT (request ->> 'limit')::integer
        ) AS f
    ));
END
$$;

-- What protection owes an account now, else 0: all of its negative balance, where its profile has it, no position is
-- open, nothing is in flight to a venue, and it was trading that took it below zero. What an adjustment took below zero
-- is an operator's to settle; one that gave something is not in the way.
CREATE OR REPLACE FUNCTION protected_debt(p_account accounts) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_account.balance < 0
            AND NOT EXISTS (
                SELECT FROM venue_routes AS r
                WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done'
            )
            AND (SELECT t.negative_balance_protection FROM margin_terms(ARRAY[p_account.id]) AS t)
            AND NOT EXISTS (
                SELECT FROM positions AS p
                WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
            )
            AND NOT EXISTS (
                SELECT FROM ledger_entries AS e
                WHERE e.user_id = p_account.user_id AND e.account_id = p_account.id
                    AND e.entry_type IN ('adjustment', 'withdrawal') AND e.amount < 0 AND e.balance_after < 0
                    AND e.entry_number > coalesce((
                        SELECT s.entry_number FROM ledger_entries AS s
                        WHERE s.user_id = p_account.user_id AND s.account_id = p_account.id AND s.balance_after >= 0
                        ORDER BY s.entry_number DESC
                        LIMIT 1
                    ), 0)
            )
            THEN -p_account.balance
        ELSE 0
    END
$$;

-- Books the one entry that brings the balance to zero, with audit and event. Safe to repeat, and at once from many
-- places: who comes second finds the balance at zero.
-- request {version: 1, user_id, account_id, request_id?}
-- -> {state: protected | unchanged, amount, balance, sequence}; amount and sequence NULL where nothing was booked.
CREATE OR REPLACE FUNCTION protect_balance(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_debt numeric;
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    v_debt := protected_debt(v_account);
    IF v_debt = 0 THEN
        RETURN jsonb_build_object(
            'state', 'unchanged', 'amount', NULL, 'balance', v_account.balance, 'sequence', NULL
        );
    END IF;
    PERFORM book_protection(request, v_account, v_debt, clock_timestamp());
    RETURN jsonb_build_object(
        'state', 'protected', 'amount', v_debt, 'balance', 0, 'sequence', v_account.last_sequence + 1
    );
END
$$;

-- Ledger, audit, account and event. The caller holds the account's lock.
CREATE OR REPLACE FUNCTION book_protection(
    request jsonb, p_account accounts, p_amount numeric, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    c_reason CONSTANT text := 'Negative balance protection: losses beyond the balance are not the client''s.';
    v_entry_id uuid := uuidv7();
    v_head bytea;
BEGIN
    INSERT INTO ledger_entries (
        user_id, id, account_id, entry_number, entry_type, amount, balance_after, currency, reason, created_at
    ) VALUES (
        p_account.user_id, v_entry_id, p_account.id, p_account.ledger_version + 1, 'negative_balance_protection',
        p_amount, p_account.balance + p_amount, p_account.currency, c_reason, p_at
    );
    v_head := append_audit(p_account, NULL, ARRAY[ROW(
        'BALANCE_PROTECTED', NULL, jsonb_build_object(
            'entry_id', v_entry_id, 'amount', p_amount, 'balance_after', p_account.balance + p_amount,
            'actor', 'platform'
        ), c_reason, NULL
    )::audit_entry], p_at);
    UPDATE accounts SET
        balance = balance + p_amount,
        ledger_version = ledger_version + 1,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 1,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, operator_event('BALANCE_PROTECTED'), jsonb_build_object(
            'account', account_fact(p_account, p_account.balance + p_amount, 0, 0, 0),
            'risk', jsonb_build_object(
                'type', 'negative_balance_protection', 'state', 'credited', 'amount', p_amount, 'margin_level', NULL,
                'threshold', NULL
            )
        ), request ->> 'request_id', p_at
    );
END
$$;

GRANT EXECUTE ON FUNCTION find_unprotected_balances(jsonb) TO function_risk;
GRANT EXECUTE ON FUNCTION protect_balance(jsonb) TO function_risk;
