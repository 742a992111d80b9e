SET LOCAL ROLE trading_procedures;

-- Money out of an account, by an operator: at most what the account can spare at fresh quotes.
-- request and answer as of deposit, amount positive in the request and negative in the answer, as in the ledger.
-- -> also {outcome: 'refused', code: 'INSUFFICIENT_FUNDS', message, details, account_id, sequence, transact_time,
--   replayed}: kept under the key, audited and told, like an order that is denied.
-- Raises what deposit does, and TR004 when a quote that the valuation needs is too old; a raise leaves the key free.
CREATE OR REPLACE FUNCTION withdraw(request jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT move_money(request, 'withdrawal')
$$;

-- The smaller of balance and free margin, in whole minor units, not below zero. A cash account's holdings are paid for
-- out of its balance, and what they have gained is not cash.
CREATE OR REPLACE FUNCTION withdrawable(p_account accounts, p_at timestamptz) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_worth record;
BEGIN
    SELECT * INTO v_worth FROM account_valuation(p_account.user_id, p_account.id, p_at);
    IF v_worth.stale IS NOT NULL THEN
        PERFORM refuse_stale_quote(v_worth.stale);
    END IF;
    RETURN greatest(0, trunc(
        least(
            v_worth.balance, v_worth.free_margin,
            CASE p_account.kind WHEN 'cash' THEN v_worth.balance - v_worth.margin_used END
        ),
        scale(round_money(0, p_account.currency))
    ));
END
$$;

CREATE OR REPLACE FUNCTION book_refused_withdrawal(
    request jsonb, p_account accounts, p_hash text, p_amount numeric, p_available numeric, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_refusal jsonb := refusal(
        'INSUFFICIENT_FUNDS', format('Insufficient funds for %s withdrawal; available: %s',
            money_text(p_amount, p_account.currency), money_text(p_available, p_account.currency)),
        'amount', p_amount::text, 'at most ' || money_form(p_available, p_account.currency),
        jsonb_build_object('required_balance', p_amount, 'available_balance', p_available)
    );
    v_answer jsonb := v_refusal || jsonb_build_object(
        'outcome', 'refused', 'account_id', p_account.id, 'sequence', p_account.last_sequence + 1,
        'transact_time', utc_text(p_at)
    );
BEGIN
    PERFORM tell_operator_act(request, p_account, 'WITHDRAWAL_REFUSED', v_refusal, '{}', p_at);
    PERFORM keep_operator_answer(request, p_account, p_hash, v_answer, p_at);
    RETURN v_answer;
END
$$;

GRANT EXECUTE ON FUNCTION withdraw(jsonb) TO function_operator;
