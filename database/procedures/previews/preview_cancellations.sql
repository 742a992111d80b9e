SET LOCAL ROLE trading_readers;

-- What a cancellation would end and what goes with it or stays, read at one moment; nothing is written. Each answers
--   {account {id, currency, kind, leverage}, canceled [order], linked [order and leaves_after]: those that work and are
--   linked with these, both by id, left: how many that fit would work on, in_flight: how many that fit are on their way
--   to a venue, working: how many orders count as working, terms {symbol: a row of order_terms}, quotes: as
--   preview_facts}
--   an order: {order_id, symbol, side, order_type, contingency, quantity, filled_quantity, leaves_quantity, price: its
--   own, as text: limit or trigger, the level of a trail, of what has none the touched side of the quote; opens: the
--   lots of its rest that would add exposure}

-- As cancel_order. request {order_id}
-- Raises TR001 no such order, TR009 not in a state that can be canceled, TR015 a stop loss that is required.
CREATE OR REPLACE FUNCTION preview_cancel(p_user_id uuid, request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_order_id CONSTANT uuid := request ->> 'order_id';
    v_account accounts;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account := account_to_preview(p_user_id, account_of_order(p_user_id, v_order_id));
    PERFORM refuse_required_exit(p_user_id, v_order_id);
    PERFORM FROM orders AS o
    WHERE o.user_id = p_user_id AND o.id = v_order_id AND o.status IN ('new', 'triggered', 'partially_filled');
    IF NOT FOUND THEN
        PERFORM refuse_cancellation(p_user_id, v_order_id);
    END IF;
    RETURN cancellation_facts(v_account, ARRAY[v_order_id], clock_timestamp()) || '{"left": 0, "in_flight": 0}';
END
$$;

-- As cancel_orders. request {account_id?, symbol?, side?, order_type?}
-- Raises TR001 no such account, TR002 no such symbol, TR006 several accounts and none named.
CREATE OR REPLACE FUNCTION preview_cancel_all(p_user_id uuid, request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_found record;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account := account_to_preview(p_user_id, resolve_account(p_user_id, (request ->> 'account_id')::uuid));
    PERFORM check_known_symbol(request ->> 'symbol');
    v_found := orders_to_cancel(request, v_account);
    RETURN cancellation_facts(v_account, v_found.order_ids, clock_timestamp()) || jsonb_build_object(
        'left', v_found.working - cardinality(v_found.order_ids), 'in_flight', v_found.in_flight
    );
END
$$;

CREATE OR REPLACE FUNCTION cancellation_facts(p_account accounts, p_ids uuid[], p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_canceled jsonb;
    v_terms jsonb;
    v_currencies text [];
BEGIN
    SELECT coalesce(jsonb_agg(ending_order(p_account, o) ORDER BY o.id), '[]') INTO v_canceled
    FROM orders AS o
    WHERE o.user_id = p_account.user_id AND o.id = ANY (p_ids);
    SELECT
        coalesce(jsonb_object_agg(t.symbol, to_jsonb(t) - 'email'), '{}'),
        array_agg(t.base_currency) || array_agg(t.quote_currency)
    INTO v_terms, v_currencies
    FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id
        AND t.symbol IN (SELECT c.fact ->> 'symbol' FROM jsonb_array_elements(v_canceled) AS c (fact));
    RETURN jsonb_build_object(
        'account', previewed_account(p_account),
        'canceled', v_canceled,
        'linked', linked_with_canceled(p_account, p_ids),
        'working', (
            SELECT count(*) FROM orders AS o
            WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
                AND o.status IN ('pending_new', 'new', 'triggered', 'partially_filled')
        ),
        'terms', v_terms
    ) || preview_rates(p_account, v_currencies, p_at);
END
$$;

CREATE OR REPLACE FUNCTION ending_order(p_account accounts, p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_level numeric := (trailing_level(p_order.user_id, p_order.id)).level;
BEGIN
    RETURN jsonb_build_object(
        'order_id', p_order.id, 'symbol', p_order.symbol, 'side', p_order.side, 'order_type', p_order.order_type,
        'contingency', p_order.contingency, 'quantity', p_order.quantity,
        'filled_quantity', p_order.filled_quantity, 'leaves_quantity', p_order.leaves_quantity,
        'price', (
            SELECT price_form(coalesce(
                p_order.limit_price, limit_of_level(p_order.trigger_watch, v_level, p_order.limit_offset), v_level,
                p_order.stop_price, CASE p_order.side WHEN 'buy' THEN q.ask ELSE q.bid END
            ), i.tick_size)
            FROM instruments AS i
            LEFT JOIN quotes AS q USING (symbol)
            WHERE i.symbol = p_order.symbol
        ),
        'opens', CASE WHEN p_order.reduce_only THEN 0 ELSE greatest(0, p_order.leaves_quantity - held_against(
            netting_position(p_account, p_order.symbol), p_order.side
        )) END
    );
END
$$;

-- Those that work and are linked with the orders that end, with what each has left then. One whose parent ends follows
-- it, whoever else of its group ends.
CREATE OR REPLACE FUNCTION linked_with_canceled(p_account accounts, p_ids uuid[]) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(ending_order(p_account, f.linked) || jsonb_build_object(
        'leaves_after', leaves_without(f.canceled, f.linked)
    ) ORDER BY (f.linked).id), '[]')
    FROM (
        SELECT DISTINCT ON (l.id) c AS canceled, l AS linked
        FROM orders AS c
        INNER JOIN orders AS l ON c.user_id = l.user_id AND l.id = ANY (c.linked_order_ids)
        WHERE c.user_id = p_account.user_id AND c.id = ANY (p_ids) AND NOT l.id = ANY (p_ids)
            AND l.status IN ('new', 'triggered', 'partially_filled')
        ORDER BY l.id, c.contingency = 'oto_parent' DESC
    ) AS f
$$;

-- What an order has left once p_canceled, which is linked with it, is canceled: as settle_linked.
CREATE OR REPLACE FUNCTION leaves_without(p_canceled orders, p_linked orders) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_canceled.contingency <> 'oto_parent' THEN
        RETURN p_linked.leaves_quantity;
    END IF;
    p_canceled.status := 'canceled';
    RETURN p_linked.leaves_quantity - (share_of_child(p_canceled, p_linked)).forgone;
END
$$;

GRANT EXECUTE ON FUNCTION preview_cancel(uuid, jsonb) TO function_trader;
GRANT EXECUTE ON FUNCTION preview_cancel_all(uuid, jsonb) TO function_trader;

SET LOCAL ROLE trading_procedures;

-- What cancels judges the preview. It reads as whoever calls it: here the rows of app.user_id alone.
GRANT EXECUTE ON FUNCTION refuse_cancellation(uuid, uuid) TO trading_readers;
GRANT EXECUTE ON FUNCTION refuse_required_exit(uuid, uuid) TO trading_readers;
GRANT EXECUTE ON FUNCTION is_required_exit(orders) TO trading_readers;
