SET LOCAL ROLE trading_procedures;

-- An order's life from the audit alone, step by step, and what is rebuilt from it beside the tables. Reads only.
-- Personal data lies in audit_pii and is not looked at; what the caller wrote in words of their own is left out.

-- {at, order_id, user_id, account_id, currency, steps: [replayed step], order, positions: [{id, ...}]}, where an order
-- or a position is {rebuilt, stored, differences: [{field, by_table, by_audit}]}: `stored` is NULL where the table has
-- no row, `rebuilt` where the audit tells of none. NULL for an id that neither knows.
CREATE OR REPLACE FUNCTION replay_order(p_order_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := coalesce(get_order_owner(p_order_id), (
        SELECT l.user_id FROM order_audit_log AS l WHERE l.order_id = p_order_id LIMIT 1
    ));
    v_order orders;
    v_rebuilt record;
BEGIN
    IF v_user_id IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO v_order FROM orders AS o WHERE o.user_id = v_user_id AND o.id = p_order_id;
    SELECT * INTO v_rebuilt FROM rebuilt_orders() AS r WHERE r.user_id = v_user_id AND r.id = p_order_id;
    RETURN jsonb_build_object(
        'at', utc_text(clock_timestamp()), 'order_id', p_order_id, 'user_id', v_user_id,
        'account_id', coalesce(v_order.account_id, v_rebuilt.account_id),
        'currency', (
            SELECT a.currency FROM accounts AS a
            WHERE a.user_id = v_user_id AND a.id = coalesce(v_order.account_id, v_rebuilt.account_id)
        ),
        'steps', replayed_steps(v_user_id, p_order_id),
        'order', held_together(
            CASE WHEN v_order.id IS NOT NULL THEN to_jsonb(v_order) END,
            CASE WHEN v_rebuilt.id IS NOT NULL THEN to_jsonb(v_rebuilt) END
        ),
        'positions', replayed_positions(v_user_id, p_order_id)
    );
END
$$;

-- Each row of the audit: {version, at, action, status_before, status, actor, reason, retry_attempt, details, sequence,
-- changed}. `sequence` is that of the event of the same transaction that names the order, NULL where none does;
-- `changed`: the row is not what its hash was made of.
CREATE OR REPLACE FUNCTION replayed_steps(p_user_id uuid, p_order_id uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'version', l.version, 'at', utc_text(l.created_at), 'action', l.action, 'status_before', l.status_before,
        'status', l.status, 'actor', audit_actor(l.action, l.details, l.pii_digest IS NOT NULL), 'reason', l.reason,
        'retry_attempt', l.retry_attempt, 'details', without_callers_words(l.details), 'sequence', v.sequence,
        'changed', l.hash <> sha256(l.previous_hash || audit_bytes_v1(
            l.user_id, l.account_id, l.version, l.order_id, l.action, l.status, l.details, l.reason, l.retry_attempt,
            l.pii_digest, utc_text(l.created_at)
        ))
    ) ORDER BY l.version), '[]')
    FROM (
        SELECT s.*, lag(s.status, 1, 'initialized') OVER (ORDER BY s.version) AS status_before
        FROM order_audit_log AS s
        WHERE s.user_id = p_user_id AND s.order_id = p_order_id
    ) AS l
    LEFT JOIN LATERAL (
        SELECT min(e.sequence) AS sequence
        FROM events AS e
        WHERE e.created_at = l.created_at AND e.user_id = l.user_id AND e.account_id = l.account_id
            AND e.payload @> jsonb_build_object(
                'orders', jsonb_build_array(jsonb_build_object('order_id', l.order_id))
            )
    ) AS v ON true
$$;

-- Who brought a step about: who the row names, the trader where it came with a caller's address, a venue where it is
-- the venue's word, else the platform.
CREATE OR REPLACE FUNCTION audit_actor(p_action text, p_details jsonb, p_called boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_details ? 'actor' THEN p_details ->> 'actor'
        WHEN p_called THEN 'trader'
        WHEN p_action IN ('FILLED', 'REJECTED', 'CANCELED') AND p_details ->> 'venue' <> 'internal'
            THEN 'venue ' || (p_details ->> 'venue')
        ELSE 'platform'
    END
$$;

CREATE OR REPLACE FUNCTION without_callers_words(p_facts jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_facts - ARRAY['metadata', 'execution_instructions', 'request_hash']
$$;

-- The positions that the order's steps told of, as they are now, in the order in which it came to them.
CREATE OR REPLACE FUNCTION replayed_positions(p_user_id uuid, p_order_id uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(
        held_together(to_jsonb(p), rebuilt_beside(p, to_jsonb(r))) || jsonb_build_object('id', t.id) ORDER BY t.place
    ), '[]')
    FROM (
        SELECT (l.details -> 'position' ->> 'position_id')::uuid AS id, min(l.version) AS place
        FROM order_audit_log AS l
        WHERE l.user_id = p_user_id AND l.order_id = p_order_id AND l.details ? 'position'
        GROUP BY 1
    ) AS t
    LEFT JOIN positions AS p ON p.user_id = p_user_id AND p.id = t.id
    LEFT JOIN rebuilt_positions() AS r ON r.user_id = p_user_id AND r.id = t.id
$$;

-- What was rebuilt beside the same columns of the row; no column differs where one of both is missing.
CREATE OR REPLACE FUNCTION held_together(p_row jsonb, p_rebuilt jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'rebuilt', without_callers_words(p_rebuilt),
        'stored', (
            SELECT jsonb_object_agg(k.field, p_row -> k.field)
            FROM jsonb_object_keys(without_callers_words(coalesce(p_rebuilt, p_row))) AS k (field)
            WHERE p_row IS NOT NULL
        ),
        'differences', (
            SELECT coalesce(jsonb_agg(to_jsonb(d) ORDER BY d.field), '[]')
            FROM row_differences(p_row, p_rebuilt) AS d
            WHERE p_row IS NOT NULL
        )
    )
$$;

GRANT EXECUTE ON FUNCTION replay_order(uuid) TO compliance;
