SET LOCAL ROLE trading_procedures;

-- The daily reset as a job: accounts that hold something begin their day at its boundary, not with their next order.

-- One page of accounts in key order behind (after_user_id, after_account_id) that hold something and whose day has
-- ended. Who holds nothing is worth tomorrow what it is worth today: its day begins with its first business.
-- request {version: 1, accounts_max, after_user_id?, after_account_id?} -> {ended: [{user_id, account_id}]}
CREATE OR REPLACE FUNCTION find_ended_days(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_accounts_max integer := (request ->> 'accounts_max')::integer;
    v_after_user_id uuid := (request ->> 'after_user_id')::uuid;
    v_at timestamptz := clock_timestamp();
BEGIN
    PERFORM check_request_version(request);
    IF v_accounts_max IS NULL OR v_accounts_max < 1 THEN
        PERFORM refuse_value('accounts_max', request ->> 'accounts_max', 'at least 1');
    END IF;
    RETURN (
        SELECT jsonb_build_object('ended', coalesce(jsonb_agg(
            jsonb_build_object('user_id', e.user_id, 'account_id', e.id) ORDER BY e.user_id, e.id
        ), '[]'))
        FROM (
            SELECT a.user_id, a.id
            FROM accounts AS a
            WHERE a.day_ends_at <= v_at
                AND (v_after_user_id IS NULL OR (a.user_id, a.id) > (
                    v_after_user_id, (request ->> 'after_account_id')::uuid
                ))
                AND EXISTS (
                    SELECT FROM positions AS p
                    WHERE p.user_id = a.user_id AND p.account_id = a.id AND p.status = 'open'
                )
            ORDER BY a.user_id, a.id
            LIMIT v_accounts_max
        ) AS e
    );
END
$$;

-- Begins the day of one account, in a transaction of its own; whoever locks it first does. Safe to repeat.
-- request {version: 1, user_id, account_id} -> {day_ends_at}
CREATE OR REPLACE FUNCTION begin_account_day(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
BEGIN
    PERFORM check_request_version(request);
    -- Every lock of an account begins its day.
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    RETURN jsonb_build_object('day_ends_at', utc_text(v_account.day_ends_at));
END
$$;

GRANT EXECUTE ON FUNCTION find_ended_days(jsonb) TO function_end_of_day;
GRANT EXECUTE ON FUNCTION begin_account_day(jsonb) TO function_end_of_day;
