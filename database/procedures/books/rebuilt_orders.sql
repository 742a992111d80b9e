SET LOCAL ROLE trading_procedures;

-- Orders rebuilt from the audit alone, in the columns of the table: what verify_books and replay_order hold against it.

-- Every fill that the audit tells. `margin_added` is what the position's margin grew by, 0 where it was reduced.
CREATE OR REPLACE FUNCTION audited_fills()
RETURNS TABLE (
    user_id uuid, order_id uuid, version bigint, created_at timestamptz, status text, quantity numeric, price numeric,
    commission numeric, realized_pnl numeric, transaction_id text, position_id uuid, margin_added numeric
)
LANGUAGE sql STABLE AS $$
    SELECT
        t.user_id, t.order_id, t.version, t.created_at, t.status, (t.details ->> 'quantity')::numeric,
        (t.details ->> 'price')::numeric, (t.details ->> 'commission')::numeric,
        (t.details ->> 'realized_pnl')::numeric, t.details ->> 'transaction_id', t.position_id,
        greatest(0, t.margin_used - t.margin_before)
    FROM (
        SELECT p.*, lag(p.margin_used, 1, 0::numeric) OVER (
            PARTITION BY p.user_id, p.position_id ORDER BY p.version
        ) AS margin_before
        FROM (
            SELECT
                l.user_id, l.order_id, l.version, l.created_at, l.status, l.details,
                (l.details -> 'position' ->> 'position_id')::uuid AS position_id,
                (l.details -> 'position' ->> 'margin_used')::numeric AS margin_used
            FROM order_audit_log AS l
            WHERE l.details ? 'position'
        ) AS p
    ) AS t
    WHERE t.details ? 'fill_id'
$$;

-- What is asked for stands in the row SUBMITTED, what came of it in the rows after it.
DROP FUNCTION IF EXISTS rebuilt_orders();
CREATE FUNCTION rebuilt_orders()
RETURNS TABLE (
    user_id uuid, id uuid, account_id uuid, client_order_id text, parent_order_id uuid, replaces_order_id uuid,
    symbol text, order_type text,
    side text, quantity numeric, limit_price numeric, stop_price numeric, stop_loss numeric, take_profit numeric,
    time_in_force text, expires_at timestamptz, active_at timestamptz, display_quantity numeric,
    display_variance numeric, post_only boolean, trail_amount numeric, trail_percent numeric, limit_offset numeric,
    triggered_at timestamptz, max_slippage numeric, reduce_only boolean,
    execution_instructions jsonb, strategy_id text, signal_id text, component_name text, metadata jsonb,
    idempotency_key text, request_id text,
    created_at timestamptz, status text, filled_quantity numeric, leaves_quantity numeric,
    canceled_quantity numeric, held_quantity numeric, last_price numeric,
    average_price numeric, slippage numeric, commission numeric, total_cost numeric, position_id uuid,
    transaction_id text, executed_at timestamptz, venue_order_id text, failure_code text, failure_reason text,
    conditions jsonb
)
LANGUAGE sql STABLE AS $$
    WITH steps AS (
        SELECT
            l.user_id, l.order_id,
            (array_agg(l.account_id))[1] AS account_id,
            (array_agg(l.details) FILTER (WHERE l.action = 'SUBMITTED'))[1] AS asked,
            min(l.created_at) FILTER (WHERE l.action = 'SUBMITTED') AS created_at,
            (array_agg(l.status ORDER BY l.version DESC))[1] AS status,
            (array_agg(l.details ORDER BY l.version DESC) FILTER (WHERE l.details ?& ARRAY['bid', 'ask']))[1] AS quote,
            (array_agg(l.details ->> 'expires_at') FILTER (WHERE l.action = 'APPROVED'))[1] AS expires_at,
            (array_agg(l.details ->> 'active_at' ORDER BY l.version DESC) FILTER (
                WHERE l.details ? 'active_at' AND l.action IN ('APPROVED', 'CONDITION_MET')
            ))[1] AS active_at,
            min(l.created_at) FILTER (WHERE l.action = 'TRIGGERED') AS triggered_at,
            -- Of what waited for a price; any other slips from the one quote of its audit.
            max((l.details ->> 'slipped')::numeric) AS slipped,
            coalesce(max((l.details ->> 'canceled_quantity')::numeric), 0) AS canceled_quantity,
            (array_agg(l.details ->> 'held_quantity' ORDER BY l.version DESC) FILTER (
                WHERE l.details ? 'held_quantity'
            ))[1]::numeric AS held_quantity,
            -- Where a stop that trailed was touched.
            (array_agg(l.details ->> 'level') FILTER (
                WHERE l.details ? 'level' AND l.action <> 'CONDITION_MET'
            ))[1]::numeric AS level,
            jsonb_object_agg(l.details ->> 'place', utc_text(l.created_at)) FILTER (
                WHERE l.action = 'CONDITION_MET' AND l.details ? 'place'
            ) AS conditions_met,
            (array_agg(l.details ->> 'venue_order_id' ORDER BY l.version DESC) FILTER (
                WHERE l.details ? 'venue_order_id'
            ))[1] AS venue_order_id,
            (array_agg(l.details ->> 'code' ORDER BY l.version DESC) FILTER (WHERE l.details ? 'code'))[1] AS code,
            (array_agg(l.reason ORDER BY l.version DESC) FILTER (WHERE l.details ? 'code'))[1] AS reason
        FROM order_audit_log AS l
        WHERE l.order_id IS NOT NULL
        GROUP BY l.user_id, l.order_id
    ),
    filled AS (
        SELECT
            f.user_id, f.order_id, sum(f.quantity) AS quantity, sum(f.commission) AS commission,
            sum(f.margin_added) AS margin_added,
            trim_scale(sum(f.quantity * f.price) / sum(f.quantity)) AS average_price,
            (array_agg(f.price ORDER BY f.version DESC))[1] AS last_price,
            (array_agg(f.position_id ORDER BY f.version DESC))[1] AS position_id,
            (array_agg(f.transaction_id ORDER BY f.version DESC))[1] AS transaction_id,
            max(f.created_at) FILTER (WHERE f.status = 'filled') AS executed_at
        FROM audited_fills() AS f
        GROUP BY f.user_id, f.order_id
    )
    SELECT
        s.user_id, s.order_id, s.account_id, s.asked ->> 'client_order_id', (s.asked ->> 'parent_order_id')::uuid,
        (s.asked ->> 'replaces_order_id')::uuid, s.asked ->> 'symbol', s.asked ->> 'order_type', s.asked ->> 'side',
        (s.asked ->> 'quantity')::numeric,
        coalesce((s.asked ->> 'limit_price')::numeric, limit_of_level(
            watch_of(s.asked ->> 'order_type', s.asked ->> 'side', 'new'), s.level,
            (s.asked ->> 'limit_offset')::numeric
        )),
        coalesce((s.asked ->> 'stop_price')::numeric, s.level), (s.asked ->> 'stop_loss')::numeric,
        (s.asked ->> 'take_profit')::numeric, s.asked ->> 'time_in_force',
        -- One that never worked has the end that was asked for.
        coalesce(s.expires_at, s.asked ->> 'expires_at')::timestamptz, s.active_at::timestamptz,
        (s.asked ->> 'display_quantity')::numeric, (s.asked ->> 'display_variance')::numeric,
        coalesce((s.asked ->> 'post_only')::boolean, false), (s.asked ->> 'trail_amount')::numeric,
        (s.asked ->> 'trail_percent')::numeric, (s.asked ->> 'limit_offset')::numeric, s.triggered_at,
        (s.asked ->> 'max_slippage')::numeric,
        coalesce((s.asked ->> 'reduce_only')::boolean, false), s.asked -> 'execution_instructions',
        s.asked ->> 'strategy_id', s.asked ->> 'signal_id', s.asked ->> 'component_name', s.asked -> 'metadata',
        s.asked ->> 'idempotency_key', s.asked ->> 'request_id', s.created_at, s.status, coalesce(f.quantity, 0),
        CASE
            WHEN s.status IN ('pending_new', 'new', 'triggered', 'partially_filled')
                THEN (s.asked ->> 'quantity')::numeric - coalesce(f.quantity, 0) - s.canceled_quantity
            ELSE 0
        END,
        s.canceled_quantity,
        CASE
            WHEN s.status IN ('new', 'triggered', 'partially_filled') THEN coalesce(s.held_quantity, 0) ELSE 0
        END,
        f.last_price, f.average_price,
        coalesce(s.slipped, trim_scale(abs(
            f.average_price - (s.quote ->> CASE s.asked ->> 'side' WHEN 'buy' THEN 'ask' ELSE 'bid' END)::numeric
        ))),
        coalesce(f.commission, 0), f.margin_added + f.commission, f.position_id, f.transaction_id, f.executed_at,
        s.venue_order_id, s.code, s.reason,
        CASE WHEN s.asked ? 'conditions' THEN conditions_of(s.asked -> 'conditions', s.conditions_met) END
    FROM steps AS s
    LEFT JOIN filled AS f ON s.user_id = f.user_id AND s.order_id = f.order_id
$$;
