SET LOCAL ROLE trading_procedures;

-- The days of an account: what it had when each began, from which the day's loss and the drawdown are counted.

-- Opens the account's day at p_at, unless it is open; the account's row as it is then. The caller holds its lock.
-- lock_account calls it, so that the row is there before any business of the day; a job that locks each account once
-- its day_ends_at has passed, in a transaction of its own, opens the day with the equity of that time.
-- A day begins at day_start_hour in day_time_zone (effective_limits), or where the one before it ended if that is
-- later: a changed boundary holds from the next day on. start_equity is the balance and the P&L at the last quotes,
-- whatever their age; the balance alone where something held has no quote at all. Amounts are in account currency.
CREATE OR REPLACE FUNCTION open_account_day(p_account accounts, p_at timestamptz) RETURNS accounts
LANGUAGE plpgsql AS $$
DECLARE
    v_day record;
    v_last account_days;
    v_equity numeric;
BEGIN
    IF p_account.day_ends_at > p_at THEN
        RETURN p_account;
    END IF;
    SELECT b.* INTO v_day
    FROM effective_limits AS l
    CROSS JOIN LATERAL day_bounds(l.day_time_zone, l.day_start_hour, p_at) AS b
    WHERE l.user_id = p_account.user_id AND l.account_id = p_account.id;
    IF NOT FOUND THEN
        -- Without settings it cannot trade.
        RETURN p_account;
    END IF;
    SELECT * INTO v_last FROM account_days AS d
    WHERE d.user_id = p_account.user_id AND d.account_id = p_account.id
    ORDER BY d.starts_at DESC LIMIT 1;
    SELECT coalesce(w.equity, w.balance) INTO v_equity
    FROM account_valuation(p_account.user_id, p_account.id) AS w;
    INSERT INTO account_days (
        user_id, account_id, starts_at, ends_at, day, opened_at, ledger_version, start_balance, start_equity,
        peak_equity
    ) VALUES (
        p_account.user_id, p_account.id, greatest(v_day.starts_at, v_last.ends_at), v_day.ends_at, v_day.day, p_at,
        p_account.ledger_version, p_account.balance, v_equity, greatest(v_equity, v_last.peak_equity)
    );
    UPDATE accounts AS a SET day_ends_at = v_day.ends_at
    WHERE a.user_id = p_account.user_id AND a.id = p_account.id
    RETURNING a.* INTO STRICT p_account;
    RETURN p_account;
END
$$;

-- The day that p_at lies in: starts_at <= p_at < ends_at. Its date is that on which it begins.
CREATE OR REPLACE FUNCTION day_bounds(
    p_zone text, p_hour integer, p_at timestamptz, OUT day date, OUT starts_at timestamptz, OUT ends_at timestamptz
)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    day := ((p_at AT TIME ZONE p_zone) - p_hour * interval '1 hour')::date;
    starts_at := (day + p_hour * interval '1 hour') AT TIME ZONE p_zone;
    -- In the hour that a clock set back has twice.
    IF starts_at > p_at THEN
        day := day - 1;
        starts_at := (day + p_hour * interval '1 hour') AT TIME ZONE p_zone;
    END IF;
    ends_at := (day + 1 + p_hour * interval '1 hour') AT TIME ZONE p_zone;
END
$$;

-- Keeps an equity that is higher than any before; for who has valued the account under its lock.
CREATE OR REPLACE FUNCTION raise_peak_equity(p_account accounts, p_equity numeric) RETURNS void
LANGUAGE sql AS $$
    UPDATE account_days AS d SET peak_equity = p_equity
    WHERE d.user_id = p_account.user_id AND d.account_id = p_account.id AND d.ends_at = p_account.day_ends_at
        AND d.peak_equity < p_equity
$$;
