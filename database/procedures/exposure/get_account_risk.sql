SET LOCAL ROLE trading_readers;

-- An account's risk for its owner and for reports: the named account, else the user's only one (TR001 when there is
-- none). Decimals as text, amounts in account currency; those are NULL that need a quote which is not there.
-- -> {account_id, currency, equity, exposure {gross, net, by_symbol [{symbol, long_quantity, short_quantity,
--   long_value, short_value}], by_currency [{currency, amount, value}]}, value_at_risk {method, scenarios, one_day_95,
--   one_day_99}, drawdown {peak_equity, current, current_percent, max}, day {starts_at, start_equity, pnl}}
-- day: the one that is not over; NULL members while none has begun. Its pnl counts no money that came or went.
CREATE OR REPLACE FUNCTION get_account_risk(p_user_id uuid, p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_equity numeric;
    v_var jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    SELECT * INTO STRICT v_account FROM accounts AS a
    WHERE a.user_id = p_user_id AND a.id = resolve_account(p_user_id, p_account_id);
    SELECT v.equity INTO v_equity FROM account_valuation(p_user_id, v_account.id) AS v;
    v_var := account_var(v_account.id);
    RETURN jsonb_build_object(
        'account_id', v_account.id,
        'currency', v_account.currency,
        'equity', money_form(v_equity, v_account.currency),
        'exposure', readable_exposure(v_account),
        'value_at_risk', v_var || jsonb_build_object(
            'one_day_95', money_form((v_var ->> 'one_day_95')::numeric, v_account.currency),
            'one_day_99', money_form((v_var ->> 'one_day_99')::numeric, v_account.currency)
        ),
        'drawdown', readable_drawdown(v_account, v_equity),
        'day', readable_day(v_account, v_equity)
    );
END
$$;

CREATE OR REPLACE FUNCTION readable_exposure(p_account accounts) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    WITH held AS MATERIALIZED (
        SELECT e.* FROM account_exposures(ARRAY[p_account.id]) AS e
    )
    SELECT jsonb_build_object(
        'gross', money_form(
            CASE count(*) WHEN count(h.long_value + h.short_value) THEN coalesce(sum(h.long_value + h.short_value), 0) END,
            p_account.currency
        ),
        'net', money_form(
            CASE count(*) WHEN count(h.long_value - h.short_value) THEN coalesce(sum(h.long_value - h.short_value), 0) END,
            p_account.currency
        ),
        'by_symbol', coalesce(jsonb_agg(jsonb_build_object(
            'symbol', h.symbol, 'long_quantity', number_form(h.long_quantity),
            'short_quantity', number_form(h.short_quantity),
            'long_value', money_form(h.long_value, p_account.currency),
            'short_value', money_form(h.short_value, p_account.currency)
        ) ORDER BY h.symbol), '[]'),
        'by_currency', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'currency', c.currency, 'amount', money_form(c.amount, c.currency),
                'value', money_form(convert_amount(c.amount, c.currency, p_account.currency), p_account.currency)
            ) ORDER BY c.currency), '[]')
            FROM currency_exposures(p_account.id) AS c
        )
    )
    FROM held AS h
$$;

-- What an account holds and owes of each currency through its open positions: of forex the base currency against its
-- price, of others the value in the currency that they are quoted in.
CREATE OR REPLACE FUNCTION currency_exposures(p_account_id uuid) RETURNS TABLE (currency text, amount numeric)
LANGUAGE sql STABLE AS $$
    WITH held AS (
        SELECT
            i.asset_class, i.base_currency, i.quote_currency,
            p.quantity * i.contract_size * CASE p.side WHEN 'long' THEN 1 ELSE -1 END AS units,
            CASE p.side WHEN 'long' THEN q.bid ELSE q.ask END AS mark
        FROM positions AS p
        INNER JOIN instruments AS i ON p.symbol = i.symbol
        LEFT JOIN quotes AS q ON p.symbol = q.symbol
        WHERE p.account_id = p_account_id AND p.status = 'open'
    ),
    legs AS (
        SELECT h.base_currency AS currency, h.units AS amount FROM held AS h WHERE h.asset_class = 'forex'
        UNION ALL
        SELECT h.quote_currency, CASE h.asset_class WHEN 'forex' THEN -h.units * h.mark ELSE h.units * h.mark END
        FROM held AS h
    )
    SELECT l.currency, CASE count(*) WHEN count(l.amount) THEN sum(l.amount) END
    FROM legs AS l
    GROUP BY l.currency
$$;

-- How far the account is below its peak, and the farthest that it has been, by the hourly snapshots and now. What came
-- in and went out counts neither as gain nor as loss: the peak moves with it.
CREATE OR REPLACE FUNCTION readable_drawdown(p_account accounts, p_equity numeric) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    WITH transfers AS MATERIALIZED (
        SELECT e.entry_number, sum(e.amount) OVER (ORDER BY e.entry_number) AS so_far
        FROM ledger_entries AS e
        WHERE e.user_id = p_account.user_id AND e.account_id = p_account.id
            AND e.entry_type NOT IN ('realized_pnl', 'commission', 'financing')
    ),
    gained AS (
        -- An account begins with nothing gained.
        SELECT '-infinity'::timestamptz AS at, 0::numeric AS amount
        UNION ALL
        SELECT s.taken_at, s.equity - coalesce((
            SELECT t.so_far FROM transfers AS t WHERE t.entry_number <= s.ledger_version
            ORDER BY t.entry_number DESC LIMIT 1
        ), 0)
        FROM equity_snapshots AS s
        WHERE s.user_id = p_account.user_id AND s.account_id = p_account.id
        UNION ALL
        SELECT 'infinity', p_equity - coalesce((SELECT t.so_far FROM transfers AS t ORDER BY t.entry_number DESC LIMIT 1), 0)
        WHERE p_equity IS NOT NULL
    ),
    falls AS (
        SELECT g.at, g.amount, max(g.amount) OVER past AS peak, max(g.amount) OVER past - g.amount AS fall
        FROM gained AS g
        WINDOW past AS (ORDER BY g.at ROWS UNBOUNDED PRECEDING)
    ),
    now AS (
        SELECT f.fall, p_equity + f.fall AS peak_equity FROM falls AS f WHERE f.at = 'infinity'
    )
    SELECT jsonb_build_object(
        'peak_equity', money_form(max(n.peak_equity), p_account.currency),
        'current', money_form(max(n.fall), p_account.currency),
        'current_percent', round(max(n.fall) * 100 / nullif(max(n.peak_equity), 0), 2)::text,
        'max', money_form(max(f.fall), p_account.currency)
    )
    FROM falls AS f
    LEFT JOIN now AS n ON true
$$;

CREATE OR REPLACE FUNCTION readable_day(p_account accounts, p_equity numeric) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'starts_at', utc_text(d.starts_at),
        'start_equity', money_form(d.start_equity, p_account.currency),
        'pnl', money_form(p_equity - d.start_equity - d.transferred, p_account.currency)
    )
    FROM (VALUES (clock_timestamp())) AS n (at)
    LEFT JOIN account_days AS d
        ON d.user_id = p_account.user_id AND d.account_id = p_account.id AND d.starts_at <= n.at AND d.ends_at > n.at
$$;

GRANT EXECUTE ON FUNCTION get_account_risk(uuid, uuid) TO function_trader, function_operator, compliance;
