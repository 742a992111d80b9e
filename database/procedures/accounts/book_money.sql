SET LOCAL ROLE trading_procedures;

-- What deposit, withdraw, adjust and change_account share: the request under its account's lock, a movement of money
-- with its ledger, audit, event and stored answer.

-- The account that an operator's request is about, locked, and the stored answer of its key where there is one. A known
-- key is answered without the lock. request_hash is the caller's, else made of the request itself; p_kind keeps the
-- keys of one kind of request apart from another's.
CREATE OR REPLACE FUNCTION open_operator_request(
    request jsonb, p_kind text, OUT account accounts, OUT request_hash text, OUT answer jsonb
)
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_account_id uuid;
BEGIN
    PERFORM check_request_version(request);
    IF (request ->> 'actor_id')::uuid = v_user_id THEN
        RAISE EXCEPTION 'This account is your own: have another operator act on it.'
        USING ERRCODE = 'TR011', DETAIL = jsonb_build_object(
            'field', 'account_id', 'value', request ->> 'account_id', 'constraint', 'an account of somebody else'
        )::text;
    END IF;
    v_account_id := resolve_account(v_user_id, (request ->> 'account_id')::uuid);
    request_hash := coalesce(request ->> 'request_hash', operator_request_hash(request, p_kind));
    answer := replayed_answer(v_user_id, v_account_id, request ->> 'idempotency_key', request_hash);
    IF answer IS NOT NULL THEN
        RETURN;
    END IF;
    account := lock_account(v_user_id, v_account_id);
    -- Again, because the racer that held the lock may have used the key.
    answer := replayed_answer(v_user_id, v_account_id, request ->> 'idempotency_key', request_hash);
END
$$;

-- The hash of a request that brings none. A deposit's has no kind in it: releases before this one kept it so.
CREATE OR REPLACE FUNCTION operator_request_hash(request jsonb, p_kind text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(sha256(convert_to(
        CASE p_kind WHEN 'deposit' THEN '' ELSE p_kind || ' ' END || (request - ARRAY[
            'idempotency_key', 'idempotency_key_days', 'request_id', 'ip_address', 'user_agent', 'email'
        ])::text, 'UTF8'
    )), 'hex')
$$;

-- The amount of a request: whole minor units of the currency, at most 18 digits before the point.
CREATE OR REPLACE FUNCTION requested_amount(request jsonb, p_currency text, p_any_sign boolean) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_amount numeric := CASE WHEN pg_input_is_valid(request ->> 'amount', 'numeric') THEN request ->> 'amount' END;
BEGIN
    -- NaN is greater than every number, so the bound keeps it out too.
    IF v_amount IS NULL OR NOT abs(v_amount) < 1e18 OR v_amount <> round_money(v_amount, p_currency)
        OR v_amount = 0 OR (v_amount < 0 AND NOT p_any_sign) THEN
        PERFORM refuse_value('amount', request ->> 'amount', format(
            '%s, in whole minor units of %s, with at most 18 digits before the point',
            CASE WHEN p_any_sign THEN 'other than zero' ELSE 'positive' END, p_currency
        ));
    END IF;
    RETURN v_amount;
END
$$;

CREATE OR REPLACE FUNCTION check_reason(request jsonb, p_required boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT coalesce(
        length(btrim(request ->> 'reason')) > 0 AND length(request ->> 'reason') <= 500, NOT p_required
    ) THEN
        PERFORM refuse_value('reason', left(request ->> 'reason', 100), 'text of 1 to 500 characters');
    END IF;
END
$$;

-- One movement from request to answer. What a deposit, a withdrawal and an adjustment differ in are the sign and reason
-- that they take, and that no more goes out than can be spared.
CREATE OR REPLACE FUNCTION move_money(request jsonb, p_entry_type text) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_opened record;
    v_account accounts;
    v_amount numeric;
    v_available numeric;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_opened FROM open_operator_request(request, p_entry_type);
    IF v_opened.answer IS NOT NULL THEN
        RETURN v_opened.answer || '{"replayed": true}';
    END IF;
    v_account := v_opened.account;
    PERFORM check_reason(request, p_entry_type = 'adjustment');
    v_amount := requested_amount(request, v_account.currency, p_entry_type = 'adjustment');
    v_at := clock_timestamp();
    IF p_entry_type = 'withdrawal' THEN
        v_available := withdrawable(v_account, v_at);
        IF v_amount > v_available THEN
            RETURN '{"replayed": false}' || book_refused_withdrawal(
                request, v_account, v_opened.request_hash, v_amount, v_available, v_at
            );
        END IF;
        v_amount := -v_amount;
    END IF;
    RETURN '{"replayed": false}' || book_money(
        request, v_account, v_opened.request_hash, p_entry_type, v_amount, v_at
    );
END
$$;

-- Books p_amount, which is signed, as p_entry_type (deposit, withdrawal or adjustment) and returns the answer.
CREATE OR REPLACE FUNCTION book_money(
    request jsonb, p_account accounts, p_hash text, p_entry_type text, p_amount numeric, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_entry_id uuid := uuidv7();
    v_balance numeric := p_account.balance + p_amount;
    v_action text := CASE p_entry_type
        WHEN 'deposit' THEN 'DEPOSITED' WHEN 'withdrawal' THEN 'WITHDRAWN' ELSE 'ADJUSTED'
    END;
    v_answer jsonb;
BEGIN
    INSERT INTO ledger_entries (
        user_id, id, account_id, entry_number, entry_type, amount, balance_after, currency, reason, created_at
    ) VALUES (
        p_account.user_id, v_entry_id, p_account.id, p_account.ledger_version + 1, p_entry_type, p_amount, v_balance,
        p_account.currency, request ->> 'reason', p_at
    );
    UPDATE accounts SET balance = v_balance, ledger_version = ledger_version + 1
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM tell_operator_act(
        request, p_account, v_action, jsonb_build_object(
            'entry_id', v_entry_id, 'amount', p_amount, 'balance_after', v_balance
        ), '{}', p_at
    );
    v_answer := jsonb_build_object(
        'outcome', 'booked', 'entry_id', v_entry_id, 'account_id', p_account.id, 'entry_type', p_entry_type,
        'amount', p_amount, 'balance', v_balance, 'currency', p_account.currency, 'reason', request ->> 'reason',
        'sequence', p_account.last_sequence + 1, 'transact_time', utc_text(p_at)
    );
    PERFORM keep_operator_answer(request, p_account, p_hash, v_answer, p_at);
    RETURN v_answer;
END
$$;

-- Audit, chain head and event of what an operator did to an account whose new balance and terms are on its row already.
-- p_more is what the event tells of the account beside its worth.
CREATE OR REPLACE FUNCTION tell_operator_act(
    request jsonb, p_account accounts, p_action text, p_details jsonb, p_more jsonb, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_head bytea;
BEGIN
    v_head := append_audit(
        p_account, NULL, ARRAY[ROW(
            p_action, NULL, p_details || jsonb_build_object('actor', request ->> 'actor'), request ->> 'reason', NULL
        )::audit_entry], p_at,
        CASE WHEN request ?| ARRAY['ip_address', 'user_agent', 'email'] THEN request END
    );
    UPDATE accounts SET
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 1,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, operator_event(p_action), jsonb_build_object('account', (
            SELECT account_fact(p_account, v.balance, v.unrealized_pnl, v.margin_used, v.hedged_margin_credit) || p_more
            FROM account_valuation(p_account.user_id, p_account.id) AS v
        )), request ->> 'request_id', p_at
    );
END
$$;

-- DEPOSITED is told as account.deposited, ACCOUNT_CHANGED as account.changed.
CREATE OR REPLACE FUNCTION operator_event(p_action text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT 'account.' || lower(replace(p_action, 'ACCOUNT_', ''))
$$;

CREATE OR REPLACE FUNCTION keep_operator_answer(
    request jsonb, p_account accounts, p_hash text, p_answer jsonb, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM keep_answer(
        p_account, request ->> 'idempotency_key', p_hash, p_answer,
        coalesce((request ->> 'idempotency_key_days')::integer, 30), p_at
    );
END
$$;
