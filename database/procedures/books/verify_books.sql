SET LOCAL ROLE trading_procedures;

-- The invariants that hold after any fault, as rows of what breaks them; none when the books are in order.

-- I1: at most one order a key, and the key's stored answer is that order's.
CREATE OR REPLACE FUNCTION books_keys() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT o.account_id, o.idempotency_key, format('a second order under its key, %s after the first', o.apart)
    FROM (
        SELECT a.account_id, a.idempotency_key, a.created_at - lag(a.created_at) OVER (
            PARTITION BY a.user_id, a.account_id, a.idempotency_key ORDER BY a.created_at
        ) AS apart
        FROM orders AS a
        WHERE a.idempotency_key IS NOT NULL
    ) AS o
    -- A key lives for a day at least; one that has expired and was removed may come again.
    WHERE o.apart < interval '1 day'
    UNION ALL
    SELECT o.account_id, o.id::text, 'the answer of its key is missing or another order''s'
    FROM orders AS o
    LEFT JOIN idempotency_keys AS k USING (user_id, account_id, idempotency_key)
    WHERE o.idempotency_key IS NOT NULL
        AND (k.answer ->> 'order_id')::uuid IS DISTINCT FROM o.id
        AND (k.created_at <= o.created_at OR o.created_at > clock_timestamp() - interval '1 day')
    UNION ALL
    SELECT k.account_id, k.idempotency_key, 'the answer names an order that is not there'
    FROM idempotency_keys AS k
    LEFT JOIN orders AS o ON k.user_id = o.user_id AND (k.answer ->> 'order_id')::uuid = o.id
    WHERE k.answer ? 'order_id' AND o.id IS NULL
    UNION ALL
    SELECT k.account_id, k.idempotency_key, 'no event tells of its answer'
    FROM idempotency_keys AS k
    LEFT JOIN events AS v
        ON k.user_id = v.user_id AND k.account_id = v.account_id AND v.sequence = (k.answer ->> 'sequence')::bigint
    WHERE k.answer ?& ARRAY['order_id', 'outcome'] AND NOT coalesce(v.payload @> jsonb_build_object(
        'orders', jsonb_build_array(jsonb_build_object(
            'order_id', k.answer -> 'order_id', 'status', k.answer -> 'outcome'
        ))
    ), false)
$$;

-- I2: balances are the sums of their ledgers, each entry carries the balance after it, no number is missing.
CREATE OR REPLACE FUNCTION books_ledger() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH entries AS (
        SELECT
            e.*,
            sum(e.amount) OVER account AS running,
            row_number() OVER account AS place
        FROM ledger_entries AS e
        WINDOW account AS (PARTITION BY e.user_id, e.account_id ORDER BY e.entry_number)
    )
    SELECT e.account_id, e.id::text, format('balance after is %s, the sum so far %s', e.balance_after, e.running)
    FROM entries AS e
    WHERE e.balance_after <> e.running
    UNION ALL
    SELECT e.account_id, e.id::text, format('entry number %s stands in place %s', e.entry_number, e.place)
    FROM entries AS e
    WHERE e.entry_number <> e.place
    UNION ALL
    SELECT a.id, 'balance', format('balance is %s, the ledger sums to %s', a.balance, coalesce(sum(e.amount), 0))
    FROM accounts AS a
    LEFT JOIN ledger_entries AS e ON a.user_id = e.user_id AND a.id = e.account_id
    GROUP BY a.user_id, a.id
    HAVING a.balance <> coalesce(sum(e.amount), 0) OR a.ledger_version <> count(e.id)
    UNION ALL
    SELECT coalesce(e.account_id, l.account_id), coalesce(e.id::text, l.details ->> 'entry_id'),
        'money moved without a fill that the audit tells otherwise'
    FROM (
        SELECT * FROM ledger_entries
        WHERE entry_type IN ('deposit', 'withdrawal', 'adjustment', 'negative_balance_protection')
    ) AS e
    FULL JOIN (SELECT * FROM order_audit_log WHERE details ? 'entry_id') AS l
        ON e.user_id = l.user_id AND e.account_id = l.account_id AND e.id = (l.details ->> 'entry_id')::uuid
    WHERE (e.amount, e.balance_after) IS DISTINCT FROM
        ((l.details ->> 'amount')::numeric, (l.details ->> 'balance_after')::numeric)
$$;

-- I2: positions are the sums of their fills; a cash account is never short.
CREATE OR REPLACE FUNCTION books_positions() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT p.account_id, p.id::text, format('%s lots by its fills, %s by its row', sum(f.signed), p.quantity)
    FROM positions AS p
    INNER JOIN (
        SELECT f.user_id, f.position_id, f.quantity * CASE f.side WHEN 'buy' THEN 1 ELSE -1 END AS signed
        FROM fills AS f
    ) AS f ON p.user_id = f.user_id AND p.id = f.position_id
    GROUP BY p.user_id, p.id
    HAVING sum(f.signed) <> p.quantity * CASE p.side WHEN 'long' THEN 1 ELSE -1 END
    UNION ALL
    SELECT p.account_id, p.id::text, 'a cash account is short'
    FROM positions AS p
    INNER JOIN accounts AS a ON p.user_id = a.user_id AND p.account_id = a.id
    WHERE a.kind = 'cash' AND p.side = 'short'
$$;

-- I3: every fill stands in the audit and in the ledger with the same figures, and neither tells of another.
CREATE OR REPLACE FUNCTION books_fills() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(f.account_id, l.account_id), coalesce(f.id::text, l.details ->> 'fill_id'),
        'the audit tells another fill'
    FROM fills AS f
    FULL JOIN (SELECT * FROM order_audit_log WHERE details ? 'fill_id') AS l
        ON f.user_id = l.user_id AND f.id = (l.details ->> 'fill_id')::uuid
    WHERE (f.order_id, f.position_id, f.quantity, f.price, f.commission, f.realized_pnl) IS DISTINCT FROM (
        l.order_id, (l.details -> 'position' ->> 'position_id')::uuid, (l.details ->> 'quantity')::numeric,
        (l.details ->> 'price')::numeric, (l.details ->> 'commission')::numeric,
        (l.details ->> 'realized_pnl')::numeric
    )
    UNION ALL
    SELECT coalesce(f.account_id, e.account_id), coalesce(f.id, e.id)::text, 'the ledger tells another commission'
    FROM fills AS f
    FULL JOIN (SELECT * FROM ledger_entries WHERE entry_type = 'commission') AS e
        ON f.user_id = e.user_id AND f.id = e.fill_id
    WHERE (f.order_id, f.position_id, -f.commission) IS DISTINCT FROM (e.order_id, e.position_id, e.amount)
    UNION ALL
    SELECT coalesce(f.account_id, e.account_id), coalesce(f.id, e.id)::text, 'the ledger tells another realized P&L'
    FROM fills AS f
    FULL JOIN (SELECT * FROM ledger_entries WHERE entry_type = 'realized_pnl') AS e
        ON f.user_id = e.user_id AND f.id = e.fill_id
    WHERE f.id IS NULL OR f.realized_pnl <> coalesce(e.amount, 0)
$$;

-- I3: nothing is half done. A filled order has its fills, ledger, audit and event; a refused one has no fills; what is
-- left of one that rests is what its fills left, and of one that ended nothing.
CREATE OR REPLACE FUNCTION books_orders() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH filled AS (
        SELECT f.user_id, f.order_id, sum(f.quantity) AS quantity, sum(f.quantity * f.price) AS value
        FROM fills AS f
        GROUP BY f.user_id, f.order_id
    ),
    -- What the last event that names an order says of it.
    told AS (
        SELECT DISTINCT ON (v.user_id, x.fact ->> 'order_id')
            v.user_id, v.account_id, (x.fact ->> 'order_id')::uuid AS order_id, x.fact, v.payload
        FROM events AS v
        CROSS JOIN LATERAL jsonb_array_elements(v.payload -> 'orders') WITH ORDINALITY AS x (fact, place)
        ORDER BY v.user_id, x.fact ->> 'order_id', v.sequence DESC, x.place DESC
    )
    SELECT o.account_id, o.id::text, format('filled %s, its fills sum to %s', o.filled_quantity, coalesce(f.quantity, 0))
    FROM orders AS o
    LEFT JOIN filled AS f ON o.user_id = f.user_id AND o.id = f.order_id
    WHERE o.filled_quantity <> coalesce(f.quantity, 0) OR round(o.average_price * o.filled_quantity - f.value, 8) <> 0
    UNION ALL
    SELECT o.account_id, o.id::text, format(
        'leaves %s of %s in state %s, filled %s', o.leaves_quantity, o.quantity, o.status, o.filled_quantity
    )
    FROM orders AS o
    WHERE o.leaves_quantity <> CASE
        WHEN o.status IN ('pending_new', 'new', 'triggered', 'partially_filled')
            THEN o.quantity - o.filled_quantity - o.canceled_quantity
        ELSE 0
    END
    UNION ALL
    SELECT o.account_id, o.id::text, 'no event tells of it'
    FROM orders AS o
    LEFT JOIN told AS t ON o.user_id = t.user_id AND o.account_id = t.account_id AND o.id = t.order_id
    WHERE (o.status, o.symbol, o.side, o.quantity, o.filled_quantity) IS DISTINCT FROM (
            t.fact ->> 'status', t.fact ->> 'symbol', t.fact ->> 'side', (t.fact ->> 'quantity')::numeric,
            (t.fact ->> 'filled_quantity')::numeric
        )
        OR (o.status = 'filled' AND NOT t.payload @> jsonb_build_object(
            'fills', jsonb_build_array(jsonb_build_object('order_id', o.id)),
            'positions', jsonb_build_array(jsonb_build_object('position_id', o.position_id)),
            'account', jsonb_build_object('account_id', o.account_id)
        ))
    UNION ALL
    SELECT o.account_id, o.id::text, 'its client_order_id is not kept'
    FROM orders AS o
    LEFT JOIN client_order_ids AS c USING (user_id, account_id, client_order_id)
    WHERE o.client_order_id IS NOT NULL AND c.order_id IS DISTINCT FROM o.id
    UNION ALL
    SELECT l.account_id, l.order_id::text, format('the audit steps from %s to %s', l.before, l.status)
    FROM (
        SELECT l.*, lag(l.status, 1, 'initialized') OVER (PARTITION BY l.user_id, l.order_id ORDER BY l.version) AS before
        FROM order_audit_log AS l
        WHERE l.order_id IS NOT NULL
    ) AS l
    LEFT JOIN order_transitions AS t ON l.before = t.from_status AND l.status = t.to_status
    WHERE l.before <> l.status AND t.to_status IS NULL
        -- A denied order's first row says what was asked for; it never worked.
        AND NOT (l.before = 'pending_new' AND l.status = 'denied')
$$;

-- I4: an execution that added exposure left free margin at or above zero, and was judged with all others before it: the
-- margin that its event tells is, with the credit of hedges, that of every position as the events up to it left them.
CREATE OR REPLACE FUNCTION books_margin() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT v.account_id, v.payload -> 'fills' -> 0 ->> 'order_id',
        format('added exposure and left free margin %s', v.payload -> 'account' ->> 'free_margin')
    FROM events AS v
    INNER JOIN order_audit_log AS l
        ON v.user_id = l.user_id AND l.order_id = (v.payload -> 'fills' -> 0 ->> 'order_id')::uuid
        AND l.action = 'APPROVED' AND NOT (l.details ->> 'reduces')::boolean
        -- What a venue trades is booked as it is: there the acceptance is judged.
        AND NOT l.details ? 'venue'
    WHERE v.event_type = 'order.filled' AND (v.payload -> 'account' ->> 'free_margin')::numeric < 0
        -- One that rested is judged by the quote that touched it, the account is told by those of now.
        AND l.status <> 'new'
    UNION ALL
    SELECT l.account_id, l.order_id::text,
        format('was filled by a touch and left free margin %s', l.details ->> 'free_margin_after')
    FROM order_audit_log AS l
    WHERE l.action = 'EXECUTED' AND (l.details ->> 'free_margin_after')::numeric < 0
    UNION ALL
    SELECT m.account_id, m.id::text, format('margin used is told as %s, its positions sum to %s', m.told, m.summed)
    FROM (
        SELECT v.account_id, v.id,
            -- Before there were hedges no credit was told.
            (v.payload -> 'account' ->> 'margin_used')::numeric
            + coalesce((v.payload -> 'account' ->> 'hedged_margin_credit')::numeric, 0) AS told,
            sum(coalesce(c.change, 0)) OVER (PARTITION BY v.user_id, v.account_id ORDER BY v.sequence) AS summed
        FROM events AS v
        LEFT JOIN (
            SELECT t.user_id, t.id, sum(t.change) AS change
            FROM (
                SELECT p.user_id, p.id, (x.position ->> 'margin_used')::numeric - coalesce(lag(
                    (x.position ->> 'margin_used')::numeric
                ) OVER (
                    PARTITION BY p.user_id, x.position ->> 'position_id' ORDER BY p.sequence, x.place
                ), 0) AS change
                FROM events AS p
                CROSS JOIN LATERAL jsonb_array_elements(p.payload -> 'positions') WITH ORDINALITY AS x (position, place)
            ) AS t
            GROUP BY t.user_id, t.id
        ) AS c ON v.user_id = c.user_id AND v.id = c.id
    ) AS m
    WHERE m.told <> m.summed
    UNION ALL
    SELECT v.account_id, v.id::text, format(
        'margin used is told as %s, with a credit of %s', v.payload -> 'account' ->> 'margin_used',
        v.payload -> 'account' ->> 'hedged_margin_credit'
    )
    FROM events AS v
    WHERE least(
        (v.payload -> 'account' ->> 'margin_used')::numeric,
        (v.payload -> 'account' ->> 'hedged_margin_credit')::numeric
    ) < 0
    UNION ALL
    SELECT l.account_id, l.order_id::text,
        format('was sent out and left free margin %s', l.details ->> 'free_margin_after')
    FROM order_audit_log AS l
    WHERE l.action = 'APPROVED' AND l.details ? 'venue' AND (l.details ->> 'free_margin_after')::numeric < 0
$$;

-- I3 of orders that went to a venue: the route says what the order says, what is reserved is what is in flight, and
-- the newest event of the order tells its state and its fills.
CREATE OR REPLACE FUNCTION books_routes() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT o.account_id, o.id::text, format('its state is %s, its route is %s', o.status, coalesce(r.state, 'missing'))
    FROM orders AS o
    LEFT JOIN venue_routes AS r ON o.user_id = r.user_id AND o.id = r.order_id
    WHERE CASE
        WHEN r.order_id IS NULL THEN o.status = 'pending_new'
        -- One that was canceled here stays in flight until the venue has had its say.
        ELSE (r.state <> 'done') <> (o.status IN ('pending_new', 'partially_filled'))
            AND NOT (o.status = 'canceled' AND r.state <> 'done')
    END
    UNION ALL
    SELECT a.id, 'margin_reserved', format('reserved %s, in flight %s', a.margin_reserved, coalesce(sum(r.margin_reserved), 0))
    FROM accounts AS a
    LEFT JOIN venue_routes AS r ON a.user_id = r.user_id AND a.id = r.account_id AND r.state <> 'done'
    GROUP BY a.user_id, a.id
    HAVING a.margin_reserved <> coalesce(sum(r.margin_reserved), 0)
    UNION ALL
    SELECT r.account_id, f.trade_id, format('filled at %s, sent to %s', f.venue, r.venue)
    FROM venue_routes AS r
    INNER JOIN fills AS f ON r.user_id = f.user_id AND r.order_id = f.order_id
    WHERE f.venue <> r.venue
    UNION ALL
    SELECT r.account_id, r.order_id::text, 'the audit names another position that it was sent to close'
    FROM venue_routes AS r
    LEFT JOIN order_audit_log AS l
        ON r.user_id = l.user_id AND r.order_id = l.order_id AND l.action = 'SUBMITTED'
    WHERE r.closes_position_id IS DISTINCT FROM (l.details ->> 'position_id')::uuid
    UNION ALL
    SELECT o.account_id, o.id::text, format('its newest event tells of %s', coalesce(v.fact ->> 'status', 'nothing'))
    FROM venue_routes AS r
    INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
    LEFT JOIN LATERAL (
        SELECT e.payload -> 'orders' -> 0 AS fact
        FROM events AS e
        WHERE e.user_id = o.user_id AND e.account_id = o.account_id
            AND e.payload @> jsonb_build_object('orders', jsonb_build_array(jsonb_build_object('order_id', o.id)))
        ORDER BY e.sequence DESC LIMIT 1
    ) AS v ON true
    WHERE (v.fact ->> 'status', (v.fact ->> 'filled_quantity')::numeric) IS DISTINCT FROM (o.status, o.filled_quantity)
        AND r.updated_at > clock_timestamp() - interval '1 day'
        -- Others cancel by a list of orders, each with its fact.
        AND o.status <> 'canceled'
    UNION ALL
    SELECT f.account_id, f.id::text, 'no event tells of this fill'
    FROM venue_routes AS r
    INNER JOIN fills AS f ON r.user_id = f.user_id AND r.order_id = f.order_id
    WHERE f.transact_time > clock_timestamp() - interval '1 day' AND NOT EXISTS (
        SELECT FROM events AS e
        WHERE e.user_id = f.user_id AND e.account_id = f.account_id AND e.payload @> jsonb_build_object(
            'fills', jsonb_build_array(jsonb_build_object('fill_id', f.id)),
            'positions', jsonb_build_array(jsonb_build_object('position_id', f.position_id)),
            'account', jsonb_build_object('account_id', f.account_id)
        )
    )
$$;

-- I6: nobody but the owner of the tables may change or remove what is append-only, and the triggers stand guard.
CREATE OR REPLACE FUNCTION books_guards() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH kept AS (
        SELECT c.oid, c.relname, c.relforcerowsecurity FROM pg_class AS c
        WHERE c.relname IN ('order_audit_log', 'platform_audit_log', 'ledger_entries', 'fills', 'incident_events')
            AND c.relnamespace = 'public'::regnamespace
    )
    SELECT NULL::uuid, k.relname::text, format('%s may %s', r.rolname, p.privilege)
    FROM kept AS k
    CROSS JOIN pg_roles AS r
    CROSS JOIN (VALUES ('UPDATE'), ('DELETE'), ('TRUNCATE')) AS p (privilege)
    WHERE (r.rolname LIKE 'function\_%' OR r.rolname IN ('trading_procedures', 'trading_readers', 'compliance', 'backup'))
        AND has_table_privilege(r.oid, k.oid, p.privilege)
    UNION ALL
    SELECT NULL, k.relname, 'its append-only triggers are not always on'
    FROM kept AS k
    WHERE NOT k.relforcerowsecurity OR 2 <> (
        SELECT count(*) FROM pg_trigger AS t
        WHERE t.tgrelid = k.oid AND t.tgname IN ('append_only', 'append_only_whole') AND t.tgenabled = 'A'
    )
$$;

-- I7: sequences are gapless, and nothing was marked as pushed that is not there.
CREATE OR REPLACE FUNCTION books_events() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT a.id, 'events', format(
        '%s events up to %s, the account says %s', count(v.id), coalesce(max(v.sequence), 0), a.last_sequence
    )
    FROM accounts AS a
    LEFT JOIN events AS v ON a.user_id = v.user_id AND a.id = v.account_id
    GROUP BY a.user_id, a.id
    HAVING count(v.id) <> a.last_sequence OR coalesce(max(v.sequence), 0) <> a.last_sequence
    UNION ALL
    SELECT s.account_id, 'stream', format('pushed %s of %s', s.pushed_sequence, a.last_sequence)
    FROM event_streams AS s
    INNER JOIN accounts AS a ON s.user_id = a.user_id AND s.account_id = a.id
    WHERE s.pushed_sequence > a.last_sequence
$$;

-- All of it: {invariant, account_id, subject, problem}.
CREATE OR REPLACE FUNCTION verify_books()
RETURNS TABLE (invariant text, account_id uuid, subject text, problem text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT 'I1', b.* FROM books_keys() AS b
    UNION ALL SELECT 'I2', b.* FROM books_ledger() AS b
    UNION ALL SELECT 'I2', b.* FROM books_accounts() AS b
    UNION ALL SELECT 'I2', b.* FROM books_days() AS b
    UNION ALL SELECT 'I2', b.* FROM books_limits() AS b
    UNION ALL SELECT 'I2', b.* FROM books_margin_profiles() AS b
    UNION ALL SELECT 'I2', b.* FROM books_positions() AS b
    UNION ALL SELECT 'I2', b.* FROM books_rebuilt_positions() AS b
    UNION ALL SELECT 'I2', b.* FROM books_rebuilt_balances() AS b
    UNION ALL SELECT 'I2', b.* FROM books_financing() AS b
    UNION ALL SELECT 'I3', b.* FROM books_financing_events() AS b
    UNION ALL SELECT 'I3', b.* FROM books_fills() AS b
    UNION ALL SELECT 'I3', b.* FROM books_orders() AS b
    UNION ALL SELECT 'I3', b.* FROM books_rebuilt_orders() AS b
    UNION ALL SELECT 'I3', b.* FROM books_trailing() AS b
    UNION ALL SELECT 'I3', b.* FROM books_routes() AS b
    UNION ALL SELECT 'I3', b.* FROM books_replacements() AS b
    UNION ALL SELECT 'I3', b.* FROM books_operator_events() AS b
    UNION ALL SELECT 'I3', b.* FROM books_linked() AS b
    UNION ALL SELECT 'I3', b.* FROM books_conditions() AS b
    UNION ALL SELECT 'I3', b.* FROM books_interventions() AS b
    UNION ALL SELECT 'I3', b.* FROM books_alerts() AS b
    UNION ALL SELECT 'I3', b.* FROM books_episodes() AS b
    UNION ALL SELECT 'I4', b.* FROM books_margin() AS b
    UNION ALL SELECT 'I6', b.* FROM books_guards() AS b
    UNION ALL SELECT 'I6', NULL, a.chain || ' ' || a.version, a.problem FROM verify_audit() AS a
    UNION ALL SELECT 'I7', b.* FROM books_events() AS b
    ORDER BY 1, 2, 3
$$;

GRANT EXECUTE ON FUNCTION verify_books() TO compliance, backup;
