SET LOCAL ROLE trading_procedures;

-- The part of verify_books about financing: each entry is what its roll, its position's fills and the audit come to,
-- and none is missing or there twice.

-- What each finished or begun roll had to charge: the positions that were open then, by the fills up to it alone.
CREATE OR REPLACE FUNCTION rebuilt_rolls()
RETURNS TABLE (
    user_id uuid, account_id uuid, position_id uuid, roll_date date, quantity numeric, price numeric, rate numeric,
    markup numeric, basis text, days integer, finished boolean
)
LANGUAGE sql STABLE AS $$
    SELECT
        p.user_id, p.account_id, p.id, r.roll_date,
        sum(f.quantity * CASE WHEN (f.side = 'buy') = (p.side = 'long') THEN 1 ELSE -1 END),
        CASE p.side WHEN 'long' THEN r.bid ELSE r.ask END,
        CASE p.side WHEN 'long' THEN r.long_rate ELSE r.short_rate END,
        r.markup, r.basis, r.days, r.finished_at IS NOT NULL
    FROM instrument_rolls AS r
    INNER JOIN positions AS p
        ON r.symbol = p.symbol AND r.rolled_at >= p.created_at AND (p.closed_at IS NULL OR r.rolled_at < p.closed_at)
    INNER JOIN accounts AS a ON p.user_id = a.user_id AND p.account_id = a.id AND a.kind = 'margin'
    INNER JOIN fills AS f ON p.user_id = f.user_id AND p.id = f.position_id AND f.transact_time <= r.rolled_at
    GROUP BY p.user_id, p.id, r.symbol, r.roll_date
    HAVING sum(f.quantity * CASE WHEN (f.side = 'buy') = (p.side = 'long') THEN 1 ELSE -1 END) > 0
$$;

-- I2: financing is booked once a position and roll date, of what was open then, and not forgotten.
CREATE OR REPLACE FUNCTION books_financing() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH entries AS (
        SELECT * FROM ledger_entries WHERE entry_type = 'financing'
    ),
    audited AS (
        SELECT
            l.user_id, l.account_id, (l.details ->> 'position_id')::uuid AS position_id,
            (l.details ->> 'roll_date')::date AS roll_date, (l.details ->> 'amount')::numeric AS amount,
            (l.details ->> 'balance_after')::numeric AS balance_after, (l.details ->> 'quantity')::numeric AS quantity,
            (l.details ->> 'contract_size')::numeric AS contract_size,
            (l.details ->> 'tick_size')::numeric AS tick_size, (l.details ->> 'price')::numeric AS price,
            (l.details ->> 'rate')::numeric AS rate, (l.details ->> 'markup')::numeric AS markup,
            l.details ->> 'basis' AS basis, (l.details ->> 'days')::integer AS days,
            ARRAY(SELECT c.part::numeric FROM jsonb_array_elements_text(l.details -> 'conversion') AS c (part))
                AS conversion
        FROM order_audit_log AS l
        WHERE l.action = 'FINANCED'
    )
    SELECT e.account_id, e.position_id::text, format('was charged %s times for the roll of %s', count(*), e.roll_date)
    FROM entries AS e
    GROUP BY e.user_id, e.account_id, e.position_id, e.roll_date
    HAVING count(*) > 1
    UNION ALL
    SELECT coalesce(e.account_id, l.account_id), coalesce(e.position_id, l.position_id)::text, format(
        'its financing of %s is %s, by the audit %s', coalesce(e.roll_date, l.roll_date), coalesce(e.amount::text, 'none'),
        coalesce(l.amount::text, 'none')
    )
    FROM entries AS e
    FULL JOIN audited AS l USING (user_id, account_id, position_id, roll_date)
    WHERE (e.amount, e.balance_after) IS DISTINCT FROM (l.amount, l.balance_after)
    UNION ALL
    SELECT l.account_id, l.position_id::text, format('its financing of %s is %s, what was audited comes to %s',
        l.roll_date, l.amount, f.amount)
    FROM audited AS l
    INNER JOIN accounts AS a ON l.user_id = a.user_id AND l.account_id = a.id
    CROSS JOIN LATERAL (
        SELECT financing_amount(
            l.quantity * l.contract_size, l.price, l.tick_size, l.rate, l.markup, l.days, l.basis, l.conversion,
            a.currency
        ) AS amount
    ) AS f
    WHERE l.amount IS DISTINCT FROM f.amount
    UNION ALL
    SELECT coalesce(l.account_id, r.account_id), coalesce(l.position_id, r.position_id)::text, format(
        'its financing of %s is of %s lots, by its fills and the roll of %s', coalesce(l.roll_date, r.roll_date),
        coalesce(l.quantity, 0), coalesce(r.quantity, 0)
    )
    FROM audited AS l
    FULL JOIN rebuilt_rolls() AS r USING (user_id, account_id, position_id, roll_date)
    WHERE (l.quantity, l.price, l.rate, l.markup, l.basis, l.days)
        IS DISTINCT FROM (r.quantity, r.price, r.rate, r.markup, r.basis, r.days)
        -- What has not been charged yet is still to come.
        AND (l.position_id IS NOT NULL OR r.finished)
    UNION ALL
    SELECT e.account_id, e.id::text, 'a roll date without financing, or financing without one'
    FROM ledger_entries AS e
    WHERE (e.entry_type = 'financing') <> (e.roll_date IS NOT NULL)
$$;

-- I3: each charge was told, once, and nothing else.
CREATE OR REPLACE FUNCTION books_financing_events() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(e.account_id, t.account_id), coalesce(e.position_id, t.position_id)::text, format(
        'the events tell otherwise of its financing of %s', coalesce(e.roll_date, t.roll_date)
    )
    FROM (SELECT * FROM ledger_entries WHERE entry_type = 'financing') AS e
    FULL JOIN (
        SELECT
            v.user_id, v.account_id, (x.charge ->> 'position_id')::uuid AS position_id,
            (x.charge ->> 'roll_date')::date AS roll_date, sum((x.charge ->> 'amount')::numeric) AS amount,
            count(*) AS times
        FROM events AS v
        CROSS JOIN LATERAL jsonb_array_elements(v.payload -> 'financing') AS x (charge)
        WHERE v.event_type = 'account.financing'
        GROUP BY 1, 2, 3, 4
    ) AS t USING (user_id, account_id, position_id, roll_date)
    WHERE (e.amount, 1::bigint) IS DISTINCT FROM (t.amount, t.times)
$$;
