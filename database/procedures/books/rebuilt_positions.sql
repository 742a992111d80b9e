SET LOCAL ROLE trading_procedures;

-- Positions rebuilt from the audit alone, in the columns of the table: what verify_books and replay_order hold against
-- it. Its state is as the last row left it; what adds up over its life is summed from its fills. A stop that trails has
-- moved on since.
DROP FUNCTION IF EXISTS rebuilt_positions();
CREATE FUNCTION rebuilt_positions()
RETURNS TABLE (
    user_id uuid, id uuid, account_id uuid, order_id uuid, symbol text, side text, quantity numeric,
    opened_quantity numeric, entry_price numeric, margin_used numeric, stop_loss numeric, take_profit numeric,
    trail_distance numeric, commission_paid numeric, realized_pnl numeric, status text, transaction_id text,
    created_at timestamptz, closed_at timestamptz
)
LANGUAGE sql STABLE AS $$
    WITH told AS (
        SELECT DISTINCT ON (l.user_id, (l.details -> 'position' ->> 'position_id')::uuid)
            l.user_id, (l.details -> 'position' ->> 'position_id')::uuid AS id, l.account_id,
            l.details -> 'position' AS position, (l.details -> 'position' ->> 'quantity')::numeric AS quantity
        FROM order_audit_log AS l
        WHERE l.details ? 'position'
        ORDER BY l.user_id, (l.details -> 'position' ->> 'position_id')::uuid, l.version DESC
    ),
    filled AS (
        SELECT
            f.user_id, f.position_id, sum(f.quantity) AS quantity, sum(f.commission) AS commission,
            sum(f.realized_pnl) AS realized_pnl, min(f.created_at) AS opened_at, max(f.created_at) AS last_at,
            (array_agg(f.order_id ORDER BY f.version))[1] AS order_id,
            (array_agg(f.transaction_id ORDER BY f.version DESC))[1] AS transaction_id
        FROM audited_fills() AS f
        GROUP BY f.user_id, f.position_id
    )
    SELECT
        t.user_id, t.id, t.account_id, f.order_id, t.position ->> 'symbol', t.position ->> 'side', t.quantity,
        -- Its fills opened this much and closed what is gone, so that both together are what they traded.
        trim_scale((f.quantity + t.quantity) / 2), (t.position ->> 'entry_price')::numeric,
        (t.position ->> 'margin_used')::numeric, (t.position ->> 'stop_loss')::numeric,
        (t.position ->> 'take_profit')::numeric, (t.position ->> 'trail_distance')::numeric, f.commission, f.realized_pnl,
        t.position ->> 'status', f.transaction_id, f.opened_at, CASE t.position ->> 'status' WHEN 'closed' THEN f.last_at END
    FROM told AS t
    LEFT JOIN filled AS f ON t.user_id = f.user_id AND t.id = f.position_id
$$;
