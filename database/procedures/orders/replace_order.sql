SET LOCAL ROLE trading_procedures;

-- Replaces a working order: a new order takes its place, for what of the new quantity is not filled, judged as if it
-- were placed now. Both orders, audit, one event and the stored answer in one transaction. Refused, the old one works
-- on, and a denied order that names it is kept.
-- request {version: 1, user_id, order_id, order_version?, quantity?, limit_price?, stop_price?, trail_amount?,
--   trail_percent?, limit_offset?, display_quantity?, display_variance?, stop_loss?, take_profit?, time_in_force?,
--   expires_at?, conditions?, client_order_id?, idempotency_key, request_hash, idempotency_key_days, request_id?,
--   ip_address?, user_agent?, email?}
--   order_version: the version that the caller knows. quantity: in all, with what is filled. stop_loss, take_profit,
--   conditions, display_quantity and display_variance that are null are taken away, and the variance goes with the
--   display_quantity; trail_amount takes the place of trail_percent, and the other way round. What is left out stays,
--   conditions as met as they are, but for client_order_id, which names one order only.
-- -> {replayed, answer: settled_answer of the new order, which the quote of now may have touched already, with
--   stop_loss, take_profit, version, replaces_order_id and replaced: order_fact of the old one and its version}, or
--   outcome 'denied' as book_denied_order makes it, also where that touch is refused
-- Raises TR001 no such order, TR003 key reused, TR004 no fresh price, TR005 client_order_id taken, TR006 a value out of
-- its bounds, TR009 not in a state that can be replaced, TR010 another version; the last two with the order as it is.
CREATE OR REPLACE FUNCTION replace_order(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_order_id uuid := (request ->> 'order_id')::uuid;
    v_begun record;
    v_order orders;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(request, account_of_order(v_user_id, v_order_id));
    IF v_begun.answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_begun.answer);
    END IF;
    SELECT * INTO STRICT v_order FROM orders AS o WHERE o.user_id = v_user_id AND o.id = v_order_id FOR NO KEY UPDATE;
    PERFORM check_replaceable(request, v_order);
    RETURN jsonb_build_object('replayed', false, 'answer', replace_working_order(
        replacing_order(request, v_order), v_begun.account, v_order, clock_timestamp()
    ));
END
$$;

-- Under both locks, at p_at; request is that of the new order.
CREATE OR REPLACE FUNCTION replace_working_order(
    request jsonb, p_account accounts, p_old orders, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_terms order_terms;
    v_judged record;
    v_answer jsonb;
BEGIN
    PERFORM check_resting_form(request, p_at);
    v_terms := terms_of_order(request, p_account);
    v_judged := judge_resting_order(request, p_account, v_terms, p_at);
    IF v_terms.max_drawdown_percent IS NOT NULL THEN
        PERFORM raise_peak_equity(p_account, v_judged.equity);
    END IF;
    IF v_judged.refusal IS NOT NULL THEN
        RETURN book_denied_order(request, p_account, v_terms, v_judged.refusal, p_at);
    END IF;
    BEGIN
        v_answer := book_replacement(request, p_account, v_terms, p_old, v_judged.fill, p_at);
        IF v_answer ->> 'outcome' <> 'rejected' THEN
            RETURN v_answer;
        END IF;
        -- Touched as it came, and refused at that price: nothing of it is kept, and the old one works on.
        RAISE EXCEPTION 'The replacement was refused.' USING ERRCODE = 'TR014';
    EXCEPTION WHEN SQLSTATE 'TR014' THEN
        RETURN book_denied_order(request, p_account, v_terms, jsonb_build_object(
            'code', v_answer -> 'code', 'message', v_answer -> 'message', 'details', v_answer -> 'details'
        ), p_at);
    END;
END
$$;

-- The request of the new order: what p_order is, with what `request` changes of it.
CREATE OR REPLACE FUNCTION replacing_order(request jsonb, p_order orders) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_quantity numeric := coalesce((request ->> 'quantity')::numeric, p_order.quantity);
    v_time_in_force text := coalesce(request ->> 'time_in_force', p_order.time_in_force);
    v_own orders := p_order;
BEGIN
    -- What trailed trails anew, from the quote of now.
    IF p_order.order_type IN ('trailing_stop', 'trailing_stop_limit') THEN
        v_own.limit_price := NULL;
        v_own.stop_price := NULL;
    END IF;
    IF v_quantity <= p_order.filled_quantity THEN
        PERFORM refuse_value(
            'quantity', request ->> 'quantity', format('more than the %s that is filled', p_order.filled_quantity)
        );
    END IF;
    -- What works has waited; a limit that may not is another order.
    IF v_time_in_force IN ('ioc', 'fok') THEN
        PERFORM refuse_value('time_in_force', v_time_in_force, 'day, gtc or gtd');
    END IF;
    IF request ? 'conditions' THEN
        PERFORM check_new_conditions(request -> 'conditions', p_order.order_type);
    END IF;
    RETURN (
        SELECT jsonb_object_agg(m.key, m.value)
        FROM jsonb_each((as_a_caller_may_say(request) - ARRAY['order_id', 'order_version']) || jsonb_build_object(
            'replaces_order_id', p_order.id,
            'symbol', p_order.symbol,
            'side', p_order.side,
            'order_type', p_order.order_type,
            'quantity', v_quantity - p_order.filled_quantity,
            'limit_price', coalesce(request ->> 'limit_price', v_own.limit_price::text)::numeric,
            'stop_price', coalesce(request ->> 'stop_price', v_own.stop_price::text)::numeric,
            'trail_amount', CASE WHEN request ?| ARRAY['trail_amount', 'trail_percent']
                THEN (request ->> 'trail_amount')::numeric ELSE p_order.trail_amount END,
            'trail_percent', CASE WHEN request ?| ARRAY['trail_amount', 'trail_percent']
                THEN (request ->> 'trail_percent')::numeric ELSE p_order.trail_percent END,
            'limit_offset', coalesce((request ->> 'limit_offset')::numeric, p_order.limit_offset),
            'display_quantity', CASE
                WHEN request ? 'display_quantity' THEN (request ->> 'display_quantity')::numeric
                -- A part is at most what is left of the whole.
                WHEN p_order.display_quantity IS NOT NULL
                    THEN least(p_order.display_quantity, v_quantity - p_order.filled_quantity)
            END,
            'display_variance', CASE
                WHEN request ? 'display_variance' THEN (request ->> 'display_variance')::numeric
                WHEN request -> 'display_quantity' IS DISTINCT FROM 'null' THEN p_order.display_variance
            END,
            'stop_loss', CASE WHEN request ? 'stop_loss'
                THEN (request ->> 'stop_loss')::numeric ELSE p_order.stop_loss END,
            'take_profit', CASE WHEN request ? 'take_profit'
                THEN (request ->> 'take_profit')::numeric ELSE p_order.take_profit END,
            'time_in_force', v_time_in_force,
            -- Of a day order it is found anew.
            'expires_at', coalesce(request ->> 'expires_at', CASE
                WHEN v_time_in_force = 'gtd' AND p_order.time_in_force = 'gtd' THEN utc_text(p_order.expires_at)
            END),
            'max_slippage', p_order.max_slippage,
            'reduce_only', nullif(p_order.reduce_only, false),
            'post_only', nullif(p_order.post_only, false),
            'conditions', CASE WHEN request ? 'conditions' THEN request -> 'conditions' ELSE p_order.conditions END,
            'parent_order_id', p_order.parent_order_id
        ) || jsonb_build_object(
            'execution_instructions', p_order.execution_instructions,
            'strategy_id', p_order.strategy_id,
            'signal_id', p_order.signal_id,
            'component_name', p_order.component_name,
            'metadata', p_order.metadata
        )) AS m
        WHERE m.value <> 'null'
    );
END
$$;

-- Only what works here can be replaced, and, where the caller names a version, only the order that they know.
CREATE OR REPLACE FUNCTION check_replaceable(request jsonb, p_order orders) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (request ->> 'order_version')::integer <> p_order.version THEN
        RAISE EXCEPTION 'The order has changed since you read it. Look at it as it is now, then decide again.'
        USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
            'field', 'version', 'value', request ->> 'order_version', 'constraint', format('the order''s version, %s',
                p_order.version), 'order', readable_order(p_order)
        )::text;
    END IF;
    IF p_order.status NOT IN ('new', 'triggered', 'partially_filled') THEN
        RAISE EXCEPTION '%', CASE p_order.status
            WHEN 'filled' THEN 'The order is filled and cannot be replaced. Change its position, or send another order.'
            WHEN 'pending_new' THEN 'The order is on its way to its venue, where it cannot be replaced.'
            ELSE 'The order does not work any more, so there is nothing to replace.'
        END
        USING ERRCODE = 'TR009', DETAIL = jsonb_build_object(
            'field', 'status', 'value', p_order.status, 'constraint', 'an order that works',
            'order', readable_order(p_order)
        )::text;
    END IF;
    IF p_order.contingency IS NOT NULL THEN
        RAISE EXCEPTION 'The order and others depend on each other, so it cannot be replaced. Cancel it and send another.'
        USING ERRCODE = 'TR009', DETAIL = jsonb_build_object(
            'field', 'status', 'value', p_order.status, 'constraint', 'an order that stands by itself',
            'order', readable_order(p_order)
        )::text;
    END IF;
    IF EXISTS (
        SELECT FROM venue_routes AS r
        WHERE r.user_id = p_order.user_id AND r.order_id = p_order.id AND r.state <> 'done'
    ) THEN
        RAISE EXCEPTION 'The order works at its venue, where it cannot be replaced. Cancel it and send another.'
        USING ERRCODE = 'TR009', DETAIL = jsonb_build_object(
            'field', 'status', 'value', p_order.status, 'constraint', 'an order that works here',
            'order', readable_order(p_order)
        )::text;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION book_replacement(
    request jsonb, p_account accounts, p_terms order_terms, p_old orders, p_fill order_fill, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_new orders := insert_resting_order(request, p_account, p_terms, p_at);
    v_entries audit_entry [] := resting_entries(request, v_new, p_fill);
    v_sequence bigint := p_account.last_sequence + 1;
    v_answer jsonb;
BEGIN
    UPDATE orders SET
        status = 'replaced',
        leaves_quantity = 0,
        held_quantity = 0,
        version = version + 1,
        updated_at = p_at
    WHERE user_id = p_old.user_id AND id = p_old.id
    RETURNING * INTO STRICT p_old;
    p_account.audit_head := append_audit(p_account, p_old.id, ARRAY[ROW('REPLACED', 'replaced', jsonb_build_object(
        'replaced_by', v_new.id, 'filled_quantity', p_old.filled_quantity
    ), 'User requested replacement', NULL)::audit_entry], p_at);
    p_account.audit_version := p_account.audit_version + 1;
    p_account.audit_head := append_audit(p_account, v_new.id, v_entries, p_at, request);
    UPDATE accounts SET
        last_sequence = v_sequence,
        audit_version = p_account.audit_version + cardinality(v_entries),
        audit_head = p_account.audit_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, v_sequence, 'order.replaced', jsonb_build_object('orders', jsonb_build_array(
            order_fact(p_old), order_fact(v_new) || jsonb_build_object('replaces_order_id', p_old.id)
        )), request ->> 'request_id', p_at
    );
    IF v_new.held_quantity > 0 THEN
        PERFORM meet_conditions_now(unkept(request), account_under_lock(p_account), v_new, p_at);
    ELSIF is_touched_now(v_new, p_terms, p_at) THEN
        PERFORM act_on_touch(unkept(request), account_under_lock(p_account), v_new, p_terms, p_at);
    END IF;
    SELECT * INTO STRICT v_new FROM orders WHERE user_id = v_new.user_id AND id = v_new.id;
    v_answer := settled_answer(account_under_lock(p_account), v_new, p_at) || jsonb_build_object(
        'stop_loss', round_to_tick(v_new.stop_loss, p_terms.tick_size),
        'take_profit', round_to_tick(v_new.take_profit, p_terms.tick_size),
        'version', v_new.version,
        'replaces_order_id', p_old.id,
        'replaced', order_fact(p_old) || jsonb_build_object('version', p_old.version)
    );
    RETURN keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash', v_answer,
        (request ->> 'idempotency_key_days')::integer, p_at
    );
END
$$;

GRANT EXECUTE ON FUNCTION replace_order(jsonb) TO function_trader;

-- preview_replacement asks them the same, and reads the rows of app.user_id alone.
GRANT EXECUTE ON FUNCTION account_of_order(uuid, uuid) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_replaceable(jsonb, orders) TO trading_readers;
GRANT EXECUTE ON FUNCTION replacing_order(jsonb, orders) TO trading_readers;
GRANT EXECUTE ON FUNCTION as_a_caller_may_say(jsonb) TO trading_readers;
