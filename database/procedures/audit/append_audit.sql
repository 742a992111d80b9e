SET LOCAL ROLE trading_procedures;

-- The hash chain of an account: hash = sha256(previous hash || bytes of the row).

-- Version 1 of the bytes; p_created_at as utc_text() writes it. Never changed: a new form is a new function and a new
-- hash_version. No field can hold the character that parts them: free text and details are JSON, which escapes it.
CREATE OR REPLACE FUNCTION audit_bytes_v1(
    p_user_id uuid, p_account_id uuid, p_version bigint, p_order_id uuid, p_action text, p_status text,
    p_details jsonb, p_reason text, p_retry_attempt integer, p_pii_digest bytea, p_created_at text
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT convert_to(concat_ws(
        chr(31), '1', p_user_id, p_account_id, p_version, coalesce(p_order_id::text, '-'), p_action,
        coalesce(p_status, '-'), coalesce(to_json(p_reason)::text, '-'), coalesce(p_retry_attempt::text, '-'),
        coalesce(encode(p_pii_digest, 'hex'), '-'), p_created_at, p_details::text
    ), 'UTF8')
$$;

-- Appends p_entries behind the head that stands on p_account and returns the new head. The caller holds the account's
-- lock and books version and head on its row. p_pii {ip_address?, user_agent?, email?} goes with the first entry. All
-- rows are one statement, because each is a row's cost and there are four an order.
CREATE OR REPLACE FUNCTION append_audit(
    p_account accounts, p_order_id uuid, p_entries audit_entry[], p_at timestamptz, p_pii jsonb DEFAULT NULL
) RETURNS bytea
LANGUAGE plpgsql AS $$
DECLARE
    v_entry audit_entry;
    v_place integer := 0;
    v_first_id uuid := uuidv7();
    v_digest bytea;
    v_head bytea := p_account.audit_head;
    v_hashes bytea [] := ARRAY[p_account.audit_head];
    v_at_text text := utc_text(p_at);
BEGIN
    IF p_pii IS NOT NULL THEN
        v_digest := append_audit_pii(p_account.user_id, v_first_id, p_pii);
    END IF;
    FOREACH v_entry IN ARRAY p_entries LOOP
        v_place := v_place + 1;
        v_head := sha256(v_head || audit_bytes_v1(
            p_account.user_id, p_account.id, p_account.audit_version + v_place, p_order_id, v_entry.action,
            v_entry.status, v_entry.details, v_entry.reason, v_entry.retry_attempt,
            CASE v_place WHEN 1 THEN v_digest END, v_at_text
        ));
        v_hashes := v_hashes || v_head;
    END LOOP;
    INSERT INTO order_audit_log (
        user_id, id, account_id, version, order_id, action, status, details, reason, retry_attempt, pii_digest,
        previous_hash, hash, hash_version, created_at
    )
    SELECT
        p_account.user_id, CASE e.place WHEN 1 THEN v_first_id ELSE uuidv7() END, p_account.id,
        p_account.audit_version + e.place, p_order_id, e.action, e.status, e.details, e.reason, e.retry_attempt,
        CASE e.place WHEN 1 THEN v_digest END, v_hashes[e.place], v_hashes[e.place + 1], 1, p_at
    FROM unnest(p_entries) WITH ORDINALITY AS e (action, status, details, reason, retry_attempt, place);
    RETURN v_head;
END
$$;

-- The four steps of an executed order, each by its details: what append_audit does, in line, because it is on the path
-- of every order. p_reason is why the platform itself submitted it, NULL where a trader did.
CREATE OR REPLACE FUNCTION append_execution(
    p_account accounts, p_order_id uuid, p_submitted jsonb, p_approved jsonb, p_executed jsonb, p_filled jsonb,
    p_at timestamptz, p_pii jsonb, p_reason text
) RETURNS bytea
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid := p_account.user_id;
    v_account_id uuid := p_account.id;
    v_version bigint := p_account.audit_version;
    v_id uuid := uuidv7();
    v_at text := utc_text(p_at);
    v_digest bytea := append_audit_pii(v_user_id, v_id, p_pii);
    v_submitted bytea := sha256(p_account.audit_head || audit_bytes_v1(
        v_user_id, v_account_id, v_version + 1, p_order_id, 'SUBMITTED', 'pending_new', p_submitted, p_reason, NULL,
        v_digest, v_at
    ));
    v_approved bytea := sha256(v_submitted || audit_bytes_v1(
        v_user_id, v_account_id, v_version + 2, p_order_id, 'APPROVED', 'pending_new', p_approved, NULL, NULL, NULL, v_at
    ));
    v_executed bytea := sha256(v_approved || audit_bytes_v1(
        v_user_id, v_account_id, v_version + 3, p_order_id, 'EXECUTED', 'pending_new', p_executed, NULL, NULL, NULL, v_at
    ));
    v_filled bytea := sha256(v_executed || audit_bytes_v1(
        v_user_id, v_account_id, v_version + 4, p_order_id, 'FILLED', 'filled', p_filled, NULL, NULL, NULL, v_at
    ));
BEGIN
    INSERT INTO order_audit_log (
        user_id, id, account_id, version, order_id, action, status, details, reason, pii_digest, previous_hash, hash,
        hash_version, created_at
    ) VALUES
    (v_user_id, v_id, v_account_id, v_version + 1, p_order_id, 'SUBMITTED', 'pending_new', p_submitted, p_reason,
        v_digest, p_account.audit_head, v_submitted, 1, p_at),
    (v_user_id, uuidv7(), v_account_id, v_version + 2, p_order_id, 'APPROVED', 'pending_new', p_approved, NULL, NULL,
        v_submitted, v_approved, 1, p_at),
    (v_user_id, uuidv7(), v_account_id, v_version + 3, p_order_id, 'EXECUTED', 'pending_new', p_executed, NULL, NULL,
        v_approved, v_executed, 1, p_at),
    (v_user_id, uuidv7(), v_account_id, v_version + 4, p_order_id, 'FILLED', 'filled', p_filled, NULL, NULL,
        v_executed, v_filled, 1, p_at);
    RETURN v_filled;
END
$$;

-- Keeps the personal data beside the chain and returns its salted digest.
CREATE OR REPLACE FUNCTION append_audit_pii(p_user_id uuid, p_audit_id uuid, p_pii jsonb) RETURNS bytea
LANGUAGE plpgsql AS $$
DECLARE
    v_salt bytea := uuid_send(gen_random_uuid());
BEGIN
    INSERT INTO audit_pii (user_id, audit_id, salt, ip_address, user_agent, email)
    VALUES (
        p_user_id, p_audit_id, v_salt, (p_pii ->> 'ip_address')::inet, p_pii ->> 'user_agent', p_pii ->> 'email'
    );
    RETURN audit_pii_digest(v_salt, (p_pii ->> 'ip_address')::inet, p_pii ->> 'user_agent', p_pii ->> 'email');
END
$$;

CREATE OR REPLACE FUNCTION audit_pii_digest(p_salt bytea, p_ip inet, p_user_agent text, p_email text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(p_salt || convert_to(jsonb_build_array(host(p_ip), p_user_agent, p_email)::text, 'UTF8'))
$$;
