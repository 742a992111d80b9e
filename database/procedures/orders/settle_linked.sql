SET LOCAL ROLE trading_procedures;

-- What a fill or an end of an order does to those that are linked with it, in the same transaction and under the same
-- lock of the account: of two that cancel each other, a fill takes its quantity off the other; children follow their
-- parent.

-- Called after each fill of p_filled lots and, with 0, after each end; returns the order as it is then. An order
-- without links passes through.
CREATE OR REPLACE FUNCTION settle_linked(
    request jsonb, p_account accounts, p_order orders, p_filled numeric, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_linked orders;
BEGIN
    IF p_order.contingency IS NULL THEN
        RETURN p_order;
    END IF;
    FOR v_linked IN
        SELECT o.* FROM orders AS o
        WHERE o.user_id = p_order.user_id AND o.id = ANY (p_order.linked_order_ids)
            AND o.status IN ('new', 'triggered', 'partially_filled')
        ORDER BY o.id
        FOR NO KEY UPDATE
    LOOP
        IF p_order.contingency = 'oto_parent' THEN
            PERFORM follow_parent(request, account_under_lock(p_account), p_order, v_linked, p_at);
        ELSIF p_filled > 0 THEN
            PERFORM forgo_quantity(
                request, account_under_lock(p_account), v_linked, p_filled, 'Its linked order was filled', p_at
            );
        END IF;
    END LOOP;
    RETURN settle_own_rest(request, account_under_lock(p_account), p_order, p_at);
END
$$;

-- The same of many that were canceled together: what their children still hold ends with them.
CREATE OR REPLACE FUNCTION settle_canceled(
    request jsonb, p_account accounts, p_order_ids uuid[], p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders;
BEGIN
    FOR v_order IN
        SELECT o.* FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.id = ANY (p_order_ids) AND o.contingency = 'oto_parent'
            AND o.status = 'canceled'
        ORDER BY o.id
    LOOP
        PERFORM settle_linked(request, p_account, v_order, 0, p_at);
    END LOOP;
END
$$;

-- An exit whose entry only reduced a position finds nothing and ends, with what works of the other one; what both hold
-- still waits for the entry.
CREATE OR REPLACE FUNCTION forgo_exits(
    request jsonb, p_account accounts, p_order orders, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    c_reason CONSTANT text := 'Nothing is left to reduce';
    v_linked orders;
BEGIN
    FOR v_linked IN
        SELECT o.* FROM orders AS o
        WHERE o.user_id = p_order.user_id AND o.id = ANY (p_order.linked_order_ids)
            AND o.status IN ('new', 'triggered', 'partially_filled')
        FOR NO KEY UPDATE
    LOOP
        PERFORM forgo_quantity(
            request, account_under_lock(p_account), v_linked, workable_quantity(v_linked), c_reason, p_at
        );
    END LOOP;
    RETURN forgo_quantity(
        request, account_under_lock(p_account), p_order, workable_quantity(p_order), c_reason, p_at
    );
END
$$;

-- A fill that took all that its linked order had left of it ends it; one that took all that was active puts it to wait.
CREATE OR REPLACE FUNCTION settle_own_rest(
    request jsonb, p_account accounts, p_order orders, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
BEGIN
    IF p_order.status NOT IN ('new', 'triggered', 'partially_filled') OR workable_quantity(p_order) > 0 THEN
        RETURN p_order;
    END IF;
    IF p_order.leaves_quantity = 0 THEN
        RETURN end_order(
            request, p_account, p_order, 'canceled', NULL, 'Its linked order was filled with the rest', p_at
        );
    END IF;
    UPDATE orders SET trigger_price = NULL WHERE user_id = p_order.user_id AND id = p_order.id;
    p_order.trigger_price := NULL;
    RETURN p_order;
END
$$;

-- A child works with its part of what the parent has filled so far; the rest is held while the parent works, and
-- canceled when the parent has ended.
CREATE OR REPLACE FUNCTION follow_parent(
    request jsonb, p_account accounts, p_parent orders, p_child orders, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_share record := share_of_child(p_parent, p_child);
BEGIN
    RETURN change_working(
        request, p_account, p_child, v_share.forgone, v_share.held,
        CASE v_share.forgone WHEN 0 THEN 'ACTIVATED' ELSE 'REDUCED' END,
        CASE WHEN v_share.forgone > 0 THEN format('Its parent order was %s', p_parent.status) END, p_at
    );
END
$$;

-- What its parent, as it is, takes off a child, and what of the rest it keeps waiting.
CREATE OR REPLACE FUNCTION share_of_child(p_parent orders, p_child orders, OUT forgone numeric, OUT held numeric)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_unreleased numeric := p_child.quantity - released_quantity(p_parent, p_child);
BEGIN
    forgone := CASE
        WHEN p_parent.status IN ('new', 'triggered', 'partially_filled', 'filled') THEN 0 ELSE v_unreleased
    END;
    held := CASE WHEN p_parent.status IN ('new', 'triggered', 'partially_filled') THEN v_unreleased ELSE 0 END;
END
$$;

-- The part of a child that its parent's fills have released: in proportion, in whole steps of its instrument.
CREATE OR REPLACE FUNCTION released_quantity(p_parent orders, p_child orders) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_parent.filled_quantity = p_parent.quantity THEN p_child.quantity
        ELSE floor(
            p_child.quantity * p_parent.filled_quantity / p_parent.quantity / i.quantity_step
        ) * i.quantity_step
    END
    FROM instruments AS i
    WHERE i.symbol = p_child.symbol
$$;

-- What of an order a price may fill now.
CREATE OR REPLACE FUNCTION workable_quantity(p_order orders) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_order.leaves_quantity - p_order.held_quantity
$$;

-- Takes at most p_quantity off what is workable of an order; with nothing left, held or not, it is canceled.
CREATE OR REPLACE FUNCTION forgo_quantity(
    request jsonb, p_account accounts, p_order orders, p_quantity numeric, p_reason text, p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
BEGIN
    RETURN change_working(
        request, p_account, p_order, least(p_quantity, workable_quantity(p_order)), p_order.held_quantity, 'REDUCED',
        p_reason, p_at
    );
END
$$;

-- An order with p_forgone taken off and p_held left to wait: row, audit (p_action), event. Nothing where nothing
-- changes; canceled where nothing is left.
CREATE OR REPLACE FUNCTION change_working(
    request jsonb, p_account accounts, p_order orders, p_forgone numeric, p_held numeric, p_action text, p_reason text,
    p_at timestamptz
) RETURNS orders
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
BEGIN
    IF p_forgone = 0 AND p_held = p_order.held_quantity THEN
        RETURN p_order;
    END IF;
    IF p_forgone = p_order.leaves_quantity THEN
        RETURN end_order(request, p_account, p_order, 'canceled', NULL, p_reason, p_at);
    END IF;
    v_order.leaves_quantity := p_order.leaves_quantity - p_forgone;
    v_order.canceled_quantity := p_order.canceled_quantity + p_forgone;
    v_order.held_quantity := p_held;
    v_order.trigger_price := CASE WHEN workable_quantity(v_order) > 0 THEN trigger_level(v_order) END;
    UPDATE orders SET
        leaves_quantity = v_order.leaves_quantity,
        canceled_quantity = v_order.canceled_quantity,
        held_quantity = v_order.held_quantity,
        trigger_price = v_order.trigger_price,
        version = version + 1,
        updated_at = p_at
    WHERE user_id = p_order.user_id AND id = p_order.id;
    PERFORM book_changed_order(request, p_account, v_order, ROW(p_action, v_order.status, jsonb_build_object(
        'leaves_quantity', v_order.leaves_quantity, 'held_quantity', p_held, 'canceled_quantity',
        v_order.canceled_quantity, 'request_id', request ->> 'request_id'
    ), p_reason, NULL)::audit_entry, p_at);
    RETURN v_order;
END
$$;

-- Audit, account and event of an order that changes and stays in its state.
CREATE OR REPLACE FUNCTION book_changed_order(
    request jsonb, p_account accounts, p_order orders, p_entry audit_entry, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_head bytea := append_audit(p_account, p_order.id, ARRAY[p_entry], p_at);
BEGIN
    UPDATE accounts SET
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 1,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'order.' || lower(p_entry.action),
        jsonb_build_object('orders', jsonb_build_array(order_fact(p_order))), request ->> 'request_id', p_at
    );
END
$$;

-- What events and answers tell of an order's links; nothing of one without.
CREATE OR REPLACE FUNCTION linked_fact(p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_order.contingency IS NULL THEN
        RETURN '{}';
    END IF;
    RETURN jsonb_build_object(
        'contingency', p_order.contingency, 'linked_order_ids', p_order.linked_order_ids,
        'parent_order_id', p_order.parent_order_id, 'held_quantity', p_order.held_quantity
    );
END
$$;

-- What settles orders tells what would become of them.
GRANT EXECUTE ON FUNCTION share_of_child(orders, orders) TO trading_readers;
GRANT EXECUTE ON FUNCTION released_quantity(orders, orders) TO trading_readers;
