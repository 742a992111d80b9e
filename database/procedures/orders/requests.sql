SET LOCAL ROLE trading_procedures;

-- What every state-changing procedure does first: version, account and lock, replay of the key.

CREATE OR REPLACE FUNCTION check_request_version(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF request -> 'version' IS DISTINCT FROM '1' THEN
        PERFORM refuse_value('version', request ->> 'version', '1');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION refuse_value(p_field text, p_value text, p_constraint text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Check %: it must be %.', p_field, p_constraint
    USING ERRCODE = 'TR006', DETAIL = jsonb_build_object(
        'field', p_field, 'value', p_value, 'constraint', p_constraint
    )::text;
END
$$;

-- The account that a request means: the one it names, else the user's only one.
CREATE OR REPLACE FUNCTION resolve_account(p_user_id uuid, p_account_id uuid) RETURNS uuid
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_ids uuid [];
BEGIN
    IF p_account_id IS NOT NULL THEN
        SELECT array_agg(id) INTO v_ids FROM accounts WHERE user_id = p_user_id AND id = p_account_id;
    ELSE
        SELECT array_agg(id ORDER BY id) INTO v_ids FROM accounts WHERE user_id = p_user_id;
    END IF;
    IF v_ids IS NULL THEN
        RAISE EXCEPTION 'There is no such account of yours. Name one that GET /api/v1/account shows.'
        USING ERRCODE = 'TR001', DETAIL = jsonb_build_object(
            'field', 'account_id', 'value', p_account_id, 'constraint', 'an account of yours'
        )::text;
    END IF;
    IF cardinality(v_ids) > 1 THEN
        RAISE EXCEPTION 'You have several accounts: send account_id, one of %.', array_to_string(v_ids, ', ')
        USING ERRCODE = 'TR006', DETAIL = jsonb_build_object(
            'field', 'account_id', 'value', NULL, 'constraint', 'one of your accounts', 'account_ids', v_ids
        )::text;
    END IF;
    RETURN v_ids[1];
END
$$;

-- The lock is a statement of its own: what is read after it is read with a snapshot taken after the lock. The first
-- business of a day opens it.
CREATE OR REPLACE FUNCTION lock_account(p_user_id uuid, p_account_id uuid) RETURNS accounts
LANGUAGE plpgsql AS $$
DECLARE
    v_account accounts;
    v_account_id uuid := resolve_account(p_user_id, p_account_id);
BEGIN
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id AND id = v_account_id FOR NO KEY UPDATE;
    IF v_account.day_ends_at <= clock_timestamp() THEN
        v_account := open_account_day(v_account, clock_timestamp());
    END IF;
    RETURN v_account;
END
$$;

-- The stored answer of a key, NULL for a new one; a key that came with other content is refused.
CREATE OR REPLACE FUNCTION replayed_answer(p_user_id uuid, p_account_id uuid, p_key text, p_hash text) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_kept record;
BEGIN
    SELECT k.request_hash, k.answer INTO v_kept
    FROM idempotency_keys AS k
    WHERE k.user_id = p_user_id AND k.account_id = p_account_id AND k.idempotency_key = p_key;
    IF v_kept.request_hash <> p_hash THEN
        RAISE EXCEPTION 'This idempotency key was used for another request. Send a new key with new content.'
        USING ERRCODE = 'TR003', DETAIL = jsonb_build_object(
            'field', 'idempotency_key', 'value', p_key, 'constraint', 'one key, one request'
        )::text;
    END IF;
    RETURN v_kept.answer;
END
$$;

-- Keeps p_answer under the key and returns it. What comes without a key is the platform's own and keeps none.
DROP FUNCTION IF EXISTS keep_answer(accounts, text, text, jsonb, integer, timestamptz);
CREATE FUNCTION keep_answer(
    p_account accounts, p_key text, p_hash text, p_answer jsonb, p_days integer, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF p_key IS NULL THEN
        RETURN p_answer;
    END IF;
    INSERT INTO idempotency_keys (user_id, account_id, idempotency_key, request_hash, answer, created_at, expires_at)
    VALUES (p_account.user_id, p_account.id, p_key, p_hash, p_answer, p_at, p_at + p_days * interval '1 day');
    RETURN p_answer;
END
$$;

GRANT EXECUTE ON FUNCTION resolve_account(uuid, uuid) TO trading_readers;
GRANT EXECUTE ON FUNCTION refuse_value(text, text, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_request_version(jsonb) TO trading_watchers;
GRANT EXECUTE ON FUNCTION refuse_value(text, text, text) TO trading_watchers;
