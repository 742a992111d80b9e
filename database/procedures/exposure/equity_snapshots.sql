SET LOCAL ROLE trading_procedures;

-- What accounts were worth, hour by hour: the history that drawdown is counted from.

-- The value of all open positions of an account in its currency, whatever their side: longs at bid, shorts at ask, at
-- the newest quotes. One row for each symbol held; values are NULL where no quote converts them.
CREATE OR REPLACE FUNCTION account_exposures(p_account_ids uuid[])
RETURNS TABLE (
    user_id uuid, account_id uuid, symbol text, long_quantity numeric, short_quantity numeric, long_value numeric,
    short_value numeric
)
LANGUAGE sql STABLE AS $$
    WITH held AS MATERIALIZED (
        SELECT
            a.user_id, a.id AS account_id, a.currency, i.symbol, i.quote_currency,
            sum(p.quantity) FILTER (WHERE p.side = 'long') AS long_quantity,
            sum(p.quantity) FILTER (WHERE p.side = 'short') AS short_quantity,
            q.bid * i.contract_size AS long_price, q.ask * i.contract_size AS short_price
        FROM accounts AS a
        INNER JOIN positions AS p ON a.user_id = p.user_id AND a.id = p.account_id AND p.status = 'open'
        INNER JOIN instruments AS i ON p.symbol = i.symbol
        LEFT JOIN quotes AS q ON i.symbol = q.symbol
        WHERE a.id = ANY (p_account_ids)
        GROUP BY a.user_id, a.id, i.symbol, q.symbol
    ),
    rates AS MATERIALIZED (
        SELECT c.quote_currency, c.currency, conversion_fraction(c.quote_currency, c.currency, true, NULL) AS fraction
        FROM (SELECT DISTINCT h.quote_currency, h.currency FROM held AS h) AS c
    )
    SELECT
        h.user_id, h.account_id, h.symbol, coalesce(h.long_quantity, 0), coalesce(h.short_quantity, 0),
        coalesce(h.long_quantity, 0) * h.long_price * r.fraction[1] / r.fraction[2],
        coalesce(h.short_quantity, 0) * h.short_price * r.fraction[1] / r.fraction[2]
    FROM held AS h
    INNER JOIN rates AS r ON h.quote_currency = r.quote_currency AND h.currency = r.currency
$$;

-- Takes the snapshots of this hour (UTC) of one page of accounts, behind the last one that was looked at in it, and
-- thins their old ones where another day has become old. An
-- account that holds nothing and whose money has not moved since its last one gets none, nor one that cannot be valued.
-- request {version: 1, accounts_max} -> {checked, taken, finished}; finished: this hour's are all there.
CREATE OR REPLACE FUNCTION take_equity_snapshots(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_accounts_max integer := (request ->> 'accounts_max')::integer;
    v_scan snapshot_scan;
    v_at timestamptz;
    v_hour timestamptz;
    v_old timestamptz;
    v_users uuid [];
    v_accounts uuid [];
    v_taken bigint := 0;
    v_finished boolean;
BEGIN
    PERFORM check_request_version(request);
    IF v_accounts_max IS NULL OR v_accounts_max < 1 THEN
        PERFORM refuse_value('accounts_max', request ->> 'accounts_max', 'at least 1');
    END IF;
    -- Two at once take turns: each looks at a page of its own.
    SELECT * INTO STRICT v_scan FROM snapshot_scan FOR NO KEY UPDATE;
    v_at := clock_timestamp();
    v_hour := date_trunc('hour', v_at, 'UTC');
    IF v_scan.hour = v_hour AND v_scan.after_user_id IS NULL THEN
        RETURN '{"checked": 0, "taken": 0, "finished": true}';
    END IF;
    IF v_scan.hour <> v_hour THEN
        v_scan.after_user_id := NULL;
    END IF;
    SELECT coalesce(array_agg(p.user_id ORDER BY p.user_id, p.id), '{}'),
        coalesce(array_agg(p.id ORDER BY p.user_id, p.id), '{}')
    INTO v_users, v_accounts
    FROM (
        SELECT a.user_id, a.id FROM accounts AS a
        WHERE v_scan.after_user_id IS NULL OR (a.user_id, a.id) > (v_scan.after_user_id, v_scan.after_account_id)
        ORDER BY a.user_id, a.id
        LIMIT v_accounts_max
    ) AS p;
    v_taken := snapshot_accounts(v_users, v_accounts, v_hour, v_at);
    -- A day at a time, so that a history that has grown for long is thinned in steps that a run has time for.
    v_old := least(v_scan.thinned_until + interval '1 day', date_trunc('day', v_at - (
        SELECT s.equity_hours_days * interval '1 day' FROM platform_settings AS s
    ), 'UTC'));
    IF v_scan.thinned_until < v_old THEN
        PERFORM thin_snapshots(v_users, v_accounts, v_scan.thinned_until, v_old);
    END IF;
    v_finished := cardinality(v_users) < v_accounts_max;
    UPDATE snapshot_scan SET
        hour = v_hour,
        thinned_until = CASE WHEN v_finished THEN greatest(thinned_until, v_old) ELSE thinned_until END,
        after_user_id = CASE WHEN NOT v_finished THEN v_users[v_accounts_max] END,
        after_account_id = CASE WHEN NOT v_finished THEN v_accounts[v_accounts_max] END;
    RETURN jsonb_build_object('checked', cardinality(v_users), 'taken', v_taken, 'finished', v_finished);
END
$$;

-- Appends the snapshots that are due among these accounts; how many.
CREATE OR REPLACE FUNCTION snapshot_accounts(
    p_user_ids uuid[], p_account_ids uuid[], p_hour timestamptz, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_taken bigint;
BEGIN
    WITH moved AS MATERIALIZED (
        SELECT a.id, a.ledger_version
        FROM unnest(p_user_ids, p_account_ids) AS g (user_id, account_id)
        INNER JOIN accounts AS a ON g.user_id = a.user_id AND g.account_id = a.id
        LEFT JOIN LATERAL (
            SELECT s.ledger_version FROM equity_snapshots AS s
            WHERE s.user_id = a.user_id AND s.account_id = a.id
            ORDER BY s.hour DESC
            LIMIT 1
        ) AS l ON true
        WHERE coalesce(l.ledger_version, 0) <> a.ledger_version OR EXISTS (
            SELECT FROM positions AS p WHERE p.user_id = a.user_id AND p.account_id = a.id AND p.status = 'open'
        )
    ),
    exposed AS MATERIALIZED (
        SELECT e.account_id, sum(e.long_value + e.short_value) AS exposure
        FROM account_exposures(ARRAY(SELECT m.id FROM moved AS m)) AS e
        GROUP BY e.account_id
    )
    INSERT INTO equity_snapshots (
        user_id, account_id, hour, taken_at, ledger_version, balance, equity, margin_used, exposure
    )
    SELECT
        v.user_id, v.account_id, p_hour, p_at, m.ledger_version, v.balance, v.equity, v.margin_used,
        coalesce(e.exposure, 0)
    FROM margin_levels(ARRAY(SELECT m.id FROM moved AS m), p_at) AS v
    INNER JOIN moved AS m ON v.account_id = m.id
    LEFT JOIN exposed AS e ON v.account_id = e.account_id
    WHERE v.equity IS NOT NULL
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_taken = ROW_COUNT;
    RETURN v_taken;
END
$$;

-- Leaves of each day (UTC) from p_from to before p_until two snapshots of an account: of the hours in which it had
-- gained most and least, money that came or went apart, so that its peaks stay, and what was lost from one day to
-- another.
CREATE OR REPLACE FUNCTION thin_snapshots(
    p_user_ids uuid[], p_account_ids uuid[], p_from timestamptz, p_until timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH old AS MATERIALIZED (
        SELECT
            s.user_id, s.account_id, s.hour, s.equity, s.ledger_version,
            date_trunc('day', s.hour, 'UTC') AS day, min(s.ledger_version) OVER (
                PARTITION BY s.user_id, s.account_id, date_trunc('day', s.hour, 'UTC')
            ) AS first_version
        FROM unnest(p_user_ids, p_account_ids) AS g (user_id, account_id)
        INNER JOIN equity_snapshots AS s ON g.user_id = s.user_id AND g.account_id = s.account_id
        WHERE s.hour >= p_from AND s.hour < p_until
    ),
    gained AS (
        SELECT o.user_id, o.account_id, o.hour, o.day, o.equity - coalesce((
            SELECT sum(e.amount) FROM ledger_entries AS e
            WHERE e.user_id = o.user_id AND e.account_id = o.account_id AND e.entry_number > o.first_version
                AND e.entry_number <= o.ledger_version
                AND e.entry_type NOT IN ('realized_pnl', 'commission', 'financing')
        ), 0) AS amount
        FROM old AS o
    ),
    placed AS (
        SELECT
            g.user_id, g.account_id, g.hour,
            row_number() OVER (PARTITION BY g.user_id, g.account_id, g.day ORDER BY g.amount DESC, g.hour) AS from_best,
            row_number() OVER (PARTITION BY g.user_id, g.account_id, g.day ORDER BY g.amount, g.hour) AS from_worst
        FROM gained AS g
    )
    DELETE FROM equity_snapshots AS s
    USING placed AS p
    WHERE p.from_best > 1 AND p.from_worst > 1
        AND s.user_id = p.user_id AND s.account_id = p.account_id AND s.hour = p.hour;
END
$$;

GRANT EXECUTE ON FUNCTION account_exposures(uuid[]) TO trading_readers;
GRANT EXECUTE ON FUNCTION take_equity_snapshots(jsonb) TO function_end_of_day;
