SET LOCAL ROLE trading_procedures;

-- The exits of a bracket end with the position that they protect, however it was closed: in the transaction that closes
-- it, after its event, each with an audit row and an event of its own. What an exit still holds waits on for its entry,
-- whose next fill opens a position anew.
CREATE OR REPLACE FUNCTION end_exits(request jsonb, p_account accounts, p_position_id uuid, p_at timestamptz)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_exit orders;
BEGIN
    FOR v_exit IN
        SELECT o.*
        FROM orders AS o
        INNER JOIN orders AS e ON o.user_id = e.user_id AND o.parent_order_id = e.id
        WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
            AND o.status IN ('new', 'triggered', 'partially_filled')
            AND o.contingency = 'bracket_exit' AND e.position_id = p_position_id AND workable_quantity(o) > 0
        ORDER BY o.id
        FOR NO KEY UPDATE OF o
    LOOP
        PERFORM forgo_quantity(
            request, account_under_lock(p_account), v_exit, workable_quantity(v_exit), 'Its position was closed', p_at
        );
    END LOOP;
END
$$;

-- The same after a trade, by the positions that its event tells (write_trade); whether it has closed any.
CREATE OR REPLACE FUNCTION end_exits_of_trade(request jsonb, p_account accounts, p_facts jsonb, p_at timestamptz)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_closed CONSTANT uuid [] := ARRAY(
        SELECT (p ->> 'position_id')::uuid FROM jsonb_array_elements(p_facts -> 'positions') AS p
        WHERE p ->> 'status' = 'closed'
    );
    v_position_id uuid;
BEGIN
    FOREACH v_position_id IN ARRAY v_closed LOOP
        PERFORM end_exits(request, p_account, v_position_id, p_at);
    END LOOP;
    RETURN cardinality(v_closed) > 0;
END
$$;
