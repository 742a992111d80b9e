SET LOCAL ROLE trading_procedures;

-- What a keyed change of a known account begins with: the key looked up without a lock, the account's lock, the key
-- again. `answer` is what the key keeps, NULL for a new one; only then is `account` the locked row. Raises TR003,
-- TR006.
CREATE OR REPLACE FUNCTION lock_or_replay(
    request jsonb, p_account_id uuid, OUT account accounts, OUT answer jsonb
)
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_key text := request ->> 'idempotency_key';
BEGIN
    IF v_key IS NULL THEN
        PERFORM refuse_value('idempotency_key', NULL, 'a key of 1 to 255 characters');
    END IF;
    answer := replayed_answer(v_user_id, p_account_id, v_key, request ->> 'request_hash');
    IF answer IS NULL THEN
        account := lock_account(v_user_id, p_account_id);
        -- Again, because the racer that held the lock may have used the key.
        answer := replayed_answer(v_user_id, p_account_id, v_key, request ->> 'request_hash');
    END IF;
END
$$;
