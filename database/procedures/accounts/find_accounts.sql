SET LOCAL ROLE trading_procedures;

-- What an operator looks up: whose account it is, and the accounts of an address.

-- The user of an account; NULL for none.
CREATE OR REPLACE FUNCTION get_account_owner(p_account_id uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT user_id FROM accounts WHERE id = p_account_id
$$;

CREATE OR REPLACE FUNCTION get_user_of_email(p_email text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT id FROM profiles WHERE email = lower(p_email)
$$;

GRANT EXECUTE ON FUNCTION get_user_of_email(text) TO trading_readers;
GRANT EXECUTE ON FUNCTION get_account_owner(uuid) TO function_operator, function_risk_officer;

SET LOCAL ROLE trading_readers;

-- The accounts of the user with that address, the oldest first, at most 100: what get_account tells, and what
-- change_account changes. None for an address that nobody has.
CREATE OR REPLACE FUNCTION find_accounts(p_email text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := get_user_of_email(p_email);
BEGIN
    PERFORM set_config('app.user_id', v_user_id::text, true);
    RETURN (
        SELECT coalesce(jsonb_agg(get_account(a.user_id, a.id) || jsonb_build_object(
            'email', a.email, 'kyc_status', a.kyc_status, 'account_status', a.account_status,
            'account_tier', a.account_tier
        ) ORDER BY a.id), '[]')
        FROM (
            SELECT a.user_id, a.id, p.email, p.kyc_status, p.account_status, p.account_tier
            FROM profiles AS p
            INNER JOIN accounts AS a ON a.user_id = p.id
            WHERE p.id = v_user_id
            ORDER BY a.id
            LIMIT 100
        ) AS a
    );
END
$$;

GRANT EXECUTE ON FUNCTION find_accounts(text) TO function_operator;
