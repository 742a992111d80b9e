SET LOCAL ROLE trading_procedures;

-- Places orders that depend on each other, in one call and one transaction: all of them, or the first that is refused
-- as denied and none; returns the stored answer of the key.
--
-- request {version: 1, user_id, account_id?, kind, orders, take_profit?, stop_loss?, idempotency_key, request_hash,
--   idempotency_key_days, request_id?, ip_address?, user_agent?, email?}
--   kind 'oco': two `orders` of one symbol and quantity, each as of place_order.
--   kind 'oto': a parent, market or as of place_order, and 1 to 5 children as of place_order.
--   kind 'bracket': the entry alone, as a parent, with take_profit {limit_price} and stop_loss {stop_price,
--   limit_price?}, which become the exits of its position.
--   What rests is 'day', 'gtc' or 'gtd'.
-- -> {replayed, answer: {outcome: 'placed', account_id, orders: [{...order_fact, created_at}], sequence,
--   transact_time}}, the parent first, of a bracket then the stop loss; or as book_denied_order answers.
-- Raises what place_order raises; then nothing is kept.
CREATE OR REPLACE FUNCTION place_linked_orders(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_begun record;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(
        request, resolve_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid)
    );
    IF v_begun.answer IS NOT NULL THEN
        RETURN jsonb_build_object('replayed', true, 'answer', v_begun.answer);
    END IF;
    RETURN jsonb_build_object('replayed', false, 'answer', keep_answer(
        v_begun.account, request ->> 'idempotency_key', request ->> 'request_hash',
        place_group(request, v_begun.account, clock_timestamp()), (request ->> 'idempotency_key_days')::integer,
        clock_timestamp()
    ));
END
$$;

-- The group under its account's lock, at p_at: each order judged, then all written and told by one event, then what the
-- quote of now touches is filled. A parent that is a market order is executed before its children are written.
CREATE OR REPLACE FUNCTION place_group(request jsonb, p_account accounts, p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_legs jsonb [] := group_legs(request);
    v_terms order_terms [];
    v_fills order_fill [];
    v_refusal jsonb;
    v_equity numeric;
    v_answer jsonb;
    v_ids uuid [] := '{}';
    v_parent orders;
BEGIN
    PERFORM check_group(request, v_legs);
    SELECT * INTO v_terms, v_fills, v_refusal, v_equity FROM judge_group(request, p_account, v_legs, p_at);
    IF v_terms[1].max_drawdown_percent IS NOT NULL THEN
        PERFORM raise_peak_equity(p_account, v_equity);
    END IF;
    IF v_refusal IS NOT NULL THEN
        -- The last that was looked at.
        RETURN book_denied_order(
            v_legs[cardinality(v_terms)], p_account, v_terms[cardinality(v_terms)], v_refusal, p_at
        );
    END IF;
    IF v_legs[1] ->> 'order_type' = 'market' THEN
        v_answer := execute_market_order(v_legs[1], p_account, p_at);
        IF v_answer ->> 'outcome' = 'denied' THEN
            RETURN v_answer;
        END IF;
        v_ids[1] := v_answer ->> 'order_id';
    END IF;
    FOR v_place IN (1 + cardinality(v_ids))..cardinality(v_legs) LOOP
        v_ids[v_place] := (insert_resting_order(v_legs[v_place], p_account, v_terms[v_place], p_at)).id;
    END LOOP;
    SELECT * INTO STRICT v_parent FROM orders AS o WHERE o.user_id = p_account.user_id AND o.id = v_ids[1];
    PERFORM check_exits_of_entry(
        request, v_terms[1], coalesce(v_parent.average_price, v_parent.limit_price, v_parent.stop_price)
    );
    PERFORM link_group(request ->> 'kind', v_parent, v_ids);
    PERFORM book_group(account_under_lock(p_account), v_legs, v_fills, v_ids, p_at);
    PERFORM touch_group(request, p_account, v_terms, v_ids, p_at);
    IF v_legs[1] ->> 'order_type' = 'market' AND EXISTS (
        SELECT FROM positions AS p
        WHERE p.user_id = p_account.user_id AND p.id = v_parent.position_id AND p.status = 'closed'
    ) THEN
        -- It closed what was held before its exits were there.
        PERFORM end_exits(unkept(request), p_account, v_parent.position_id, p_at);
    END IF;
    RETURN group_answer(account_under_lock(p_account), v_ids, p_at);
END
$$;

-- The orders of a group, each as a request of its own without a key. An exit closes what the entry opens.
CREATE OR REPLACE FUNCTION group_legs(request jsonb) RETURNS jsonb[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_common jsonb := as_a_caller_may_say(request) - ARRAY[
        'kind', 'orders', 'take_profit', 'stop_loss', 'idempotency_key', 'idempotency_key_days'
    ] || jsonb_build_object('group_key', request -> 'idempotency_key');
    v_legs jsonb [] := ARRAY(
        SELECT as_a_caller_may_say(x.leg) || v_common
        FROM jsonb_array_elements(request -> 'orders') WITH ORDINALITY AS x (leg, place)
        ORDER BY x.place
    );
    v_exit jsonb;
BEGIN
    -- What the limits look at: how many orders come at once, and the exits that come as orders of their own.
    v_legs[1] := v_legs[1] || jsonb_strip_nulls(jsonb_build_object(
        'group_size', cardinality(v_legs) + CASE request ->> 'kind' WHEN 'bracket' THEN 2 ELSE 0 END,
        'exit_stop_price', request #> '{stop_loss,stop_price}',
        'exit_limit_price', request #> '{take_profit,limit_price}'
    ));
    IF request ->> 'kind' <> 'bracket' THEN
        RETURN v_legs;
    END IF;
    v_exit := v_common || jsonb_build_object(
        'symbol', v_legs[1] -> 'symbol', 'side', CASE v_legs[1] ->> 'side' WHEN 'buy' THEN 'sell' ELSE 'buy' END,
        'quantity', v_legs[1] -> 'quantity', 'time_in_force', 'gtc', 'reduce_only', true
    );
    -- The stop loss first: the older of two that one quote touches is executed first.
    RETURN v_legs || (v_exit || jsonb_build_object('order_type', CASE
        WHEN request #>> '{stop_loss,limit_price}' IS NULL THEN 'stop' ELSE 'stop_limit'
    END) || jsonb_strip_nulls(coalesce(request -> 'stop_loss', '{}'))) || (
        v_exit || jsonb_build_object('order_type', 'limit') || coalesce(request -> 'take_profit', '{}')
    );
END
$$;

-- Behind the API's own check: how many orders of which kind, and what they have to have in common.
CREATE OR REPLACE FUNCTION check_group(request jsonb, p_legs jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_kind text := request ->> 'kind';
    v_leg jsonb;
    v_own_ids text [] := ARRAY(SELECT l ->> 'client_order_id' FROM unnest(p_legs) AS l WHERE l ? 'client_order_id');
BEGIN
    IF v_kind IS NULL OR v_kind NOT IN ('oco', 'oto', 'bracket') THEN
        PERFORM refuse_value('kind', v_kind, 'oco, oto or bracket');
    END IF;
    IF v_kind = 'oco' AND cardinality(p_legs) <> 2 OR v_kind = 'oto' AND NOT cardinality(p_legs) BETWEEN 2 AND 6
        OR v_kind = 'bracket' AND cardinality(p_legs) <> 3 THEN
        PERFORM refuse_value('orders', jsonb_array_length(request -> 'orders')::text, CASE v_kind
            WHEN 'oco' THEN 'two orders' WHEN 'oto' THEN 'a parent and 1 to 5 children' ELSE 'the entry'
        END);
    END IF;
    IF v_kind = 'oco' AND p_legs[1] -> 'symbol' <> p_legs[2] -> 'symbol' THEN
        PERFORM refuse_value('symbol', p_legs[2] ->> 'symbol', 'the same for both');
    ELSIF v_kind = 'oco' AND (p_legs[1] ->> 'quantity')::numeric <> (p_legs[2] ->> 'quantity')::numeric THEN
        PERFORM refuse_value('quantity', p_legs[2] ->> 'quantity', 'the same for both');
    END IF;
    FOREACH v_leg IN ARRAY p_legs LOOP
        IF v_leg ->> 'time_in_force' IN ('opg', 'cls')
            OR v_leg ->> 'order_type' <> 'market' AND v_leg ->> 'time_in_force' IN ('ioc', 'fok') THEN
            PERFORM refuse_value('time_in_force', v_leg ->> 'time_in_force', 'day, gtc or gtd');
        END IF;
        PERFORM check_price_given(v_leg, 'conditions', false);
        -- Its mark would run on while it is held.
        IF is_trailing(v_leg ->> 'order_type') THEN
            PERFORM refuse_value('order_type', v_leg ->> 'order_type', 'one that waits for a price of its own');
        END IF;
    END LOOP;
    IF (SELECT count(DISTINCT i) < count(*) FROM unnest(v_own_ids) AS i) THEN
        PERFORM refuse_value('client_order_id', v_own_ids[1], 'another one for each order');
    END IF;
END
$$;

-- Terms of each order, and of those that work from the start the fill as judge_resting_order finds it; up to the first
-- that is refused. Children are judged in full when a price touches them, for what they do then depends on what their
-- parent has done; how far their prices may lie from the quote is judged now. equity as of judge_opening, NULL where
-- that is not asked. Reads only.
DROP FUNCTION IF EXISTS judge_group(jsonb, accounts, jsonb[], timestamptz);
CREATE FUNCTION judge_group(
    request jsonb, p_account accounts, p_legs jsonb[], p_at timestamptz, OUT terms order_terms[],
    OUT fills order_fill[], OUT refusal jsonb, OUT equity numeric
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_judged record;
    v_message text;
    v_detail text;
BEGIN
    FOR v_place IN 1..cardinality(p_legs) LOOP
        BEGIN
            terms[v_place] := CASE WHEN request ->> 'kind' = 'bracket' AND v_place > 1 THEN terms[1]
                ELSE terms_of_order(p_legs[v_place], p_account)
            END;
            IF v_place = 1 AND p_legs[1] ->> 'order_type' = 'market' AND request ->> 'kind' <> 'oco' THEN
                -- It is judged where it is executed; that its children wait, here.
                refusal := coalesce(
                    waiting_refusal(p_account, terms[1], true, p_at), group_size_refusal(p_account, terms[1], p_legs)
                );
                EXIT WHEN refusal IS NOT NULL;
                CONTINUE;
            END IF;
            PERFORM check_resting_form(p_legs[v_place], p_at);
            IF v_place = 1 OR request ->> 'kind' = 'oco' THEN
                v_judged := judge_resting_order(p_legs[v_place], p_account, terms[v_place], p_at);
                fills[v_place] := v_judged.fill;
                equity := coalesce(v_judged.equity, equity);
                refusal := coalesce(v_judged.refusal, group_size_refusal(p_account, terms[v_place], p_legs));
                EXIT WHEN refusal IS NOT NULL;
            ELSE
                -- It may be filled in the moment in which it begins to work.
                IF (p_legs[v_place] ->> 'post_only')::boolean THEN
                    PERFORM refuse_value('post_only', 'true', 'left out');
                END IF;
                PERFORM check_resting_prices(p_legs[v_place], terms[v_place]);
                PERFORM check_exit_prices(
                    p_legs[v_place], terms[v_place],
                    coalesce(p_legs[v_place] ->> 'limit_price', p_legs[v_place] ->> 'stop_price')::numeric, false
                );
                refusal := CASE request ->> 'kind'
                    WHEN 'oto' THEN collar_refusal(p_legs[v_place], p_account, terms[v_place])
                END;
                EXIT WHEN refusal IS NOT NULL;
            END IF;
        EXCEPTION WHEN SQLSTATE 'TR006' THEN
            -- One of several: which one it is, the caller is told too.
            GET STACKED DIAGNOSTICS v_message = MESSAGE_TEXT, v_detail = PG_EXCEPTION_DETAIL;
            RAISE EXCEPTION '%', v_message
            USING ERRCODE = 'TR006', DETAIL = (v_detail::jsonb || jsonb_build_object('place', v_place))::text;
        END;
    END LOOP;
END
$$;

-- The exits of a bracket lie on their own sides of the price at which its entry is filled.
CREATE OR REPLACE FUNCTION check_exits_of_entry(request jsonb, p_terms order_terms, p_price numeric) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF request ->> 'kind' = 'bracket' THEN
        PERFORM check_exit_prices(jsonb_build_object(
            'side', request #> '{orders,0,side}', 'stop_loss', request #> '{stop_loss,stop_price}',
            'take_profit', request #> '{take_profit,limit_price}'
        ), p_terms, p_price, false);
    END IF;
END
$$;

-- As working_orders_refusal, for all of them at once.
CREATE OR REPLACE FUNCTION group_size_refusal(
    p_account accounts, p_terms order_terms, p_legs jsonb[]
) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT working_orders_refusal(p_account, p_terms, count(*))
    FROM unnest(p_legs) AS l
    WHERE l ->> 'order_type' <> 'market'
$$;

CREATE OR REPLACE FUNCTION contingency_of(p_kind text, p_first boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_kind = 'oco' THEN 'oco' WHEN p_first THEN 'oto_parent' WHEN p_kind = 'bracket' THEN 'bracket_exit'
        ELSE 'oto_child'
    END
$$;

-- Names the orders to each other. Two that cancel each other are told by linked_order_ids, as a parent's children are;
-- a child tells its parent by parent_order_id, and waits with what its parent has not filled yet.
CREATE OR REPLACE FUNCTION link_group(p_kind text, p_parent orders, p_ids uuid[]) RETURNS void
LANGUAGE sql AS $$
    UPDATE orders AS o SET
        contingency = l.contingency,
        linked_order_ids = CASE l.contingency
            WHEN 'oco' THEN array_remove(p_ids, o.id)
            WHEN 'oto_parent' THEN p_ids[2:]
            WHEN 'bracket_exit' THEN array_remove(p_ids[2:], o.id)
            ELSE '{}'
        END,
        parent_order_id = CASE WHEN l.is_child THEN p_parent.id ELSE o.parent_order_id END,
        held_quantity = l.held,
        trigger_price = CASE WHEN l.held < o.quantity THEN o.trigger_price END
    FROM (
        SELECT
            r.id, p_kind <> 'oco' AND r.id <> p_parent.id AS is_child,
            contingency_of(p_kind, r.id = p_parent.id) AS contingency,
            CASE WHEN p_kind <> 'oco' AND r.id <> p_parent.id THEN r.quantity - released_quantity(p_parent, r) ELSE 0
            END AS held
        FROM orders AS r
        WHERE r.user_id = p_parent.user_id AND r.id = ANY (p_ids)
    ) AS l
    WHERE o.user_id = p_parent.user_id AND o.id = l.id
$$;

-- The audit of each order that rests, and one event of all of them. One that was executed has had its own.
CREATE OR REPLACE FUNCTION book_group(
    p_account accounts, p_legs jsonb[], p_fills order_fill[], p_ids uuid[], p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders;
    v_facts jsonb := '[]';
BEGIN
    FOR v_place IN 1..cardinality(p_ids) LOOP
        CONTINUE WHEN p_legs[v_place] ->> 'order_type' = 'market';
        SELECT * INTO STRICT v_order FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.id = p_ids[v_place];
        p_account.audit_head := append_audit(p_account, v_order.id, ARRAY[
            submitted_entry(p_legs[v_place] || jsonb_strip_nulls(jsonb_build_object(
                'parent_order_id', v_order.parent_order_id
            ))),
            ROW('APPROVED', 'new', jsonb_strip_nulls(linked_fact(v_order) || jsonb_build_object(
                'margin', p_fills[v_place].margin, 'commission', p_fills[v_place].commission,
                'expires_at', utc_text(v_order.expires_at)
            )), NULL, NULL)::audit_entry
        ], p_at, p_legs[v_place]);
        p_account.audit_version := p_account.audit_version + 2;
        v_facts := v_facts || order_fact(v_order);
    END LOOP;
    UPDATE accounts SET
        last_sequence = p_account.last_sequence + 1,
        audit_version = p_account.audit_version,
        audit_head = p_account.audit_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'order.linked', jsonb_build_object('orders', v_facts),
        p_legs[1] ->> 'request_id', p_at
    );
END
$$;

-- Fills what the quote of now touches. Children that a fill activates here wait for the next quote, as they do later.
-- A parent at the market that could only reduce may have been cut: its children end with what it has forgone.
CREATE OR REPLACE FUNCTION touch_group(
    request jsonb, p_account accounts, p_terms order_terms[], p_ids uuid[], p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders;
BEGIN
    FOR v_place IN 1..cardinality(p_ids) LOOP
        EXIT WHEN v_place > 1 AND request ->> 'kind' <> 'oco';
        -- As the one before it has left it.
        SELECT * INTO STRICT v_order FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.id = p_ids[v_place]
        FOR NO KEY UPDATE;
        IF v_order.status IN ('new', 'partially_filled') AND is_touched_now(v_order, p_terms[v_place], p_at) THEN
            PERFORM act_on_touch(
                unkept(request), account_under_lock(p_account), v_order, p_terms[v_place], p_at
            );
        ELSIF v_order.status = 'canceled' AND v_order.contingency = 'oto_parent' THEN
            PERFORM settle_linked(unkept(request), account_under_lock(p_account), v_order, 0, p_at);
        END IF;
    END LOOP;
END
$$;

-- What the caller is told of each order as the call has left it.
CREATE OR REPLACE FUNCTION group_answer(p_account accounts, p_ids uuid[], p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'outcome', 'placed', 'account_id', p_account.id, 'orders', jsonb_agg(
            order_fact(o) || jsonb_build_object('created_at', utc_text(o.created_at)) ORDER BY x.place
        ), 'sequence', p_account.last_sequence, 'transact_time', utc_text(p_at)
    )
    FROM unnest(p_ids) WITH ORDINALITY AS x (id, place)
    INNER JOIN orders AS o ON o.user_id = p_account.user_id AND o.id = x.id
$$;

GRANT EXECUTE ON FUNCTION place_linked_orders(jsonb) TO function_trader;
-- What judges a group judges its preview.
GRANT EXECUTE ON FUNCTION judge_group(jsonb, accounts, jsonb[], timestamptz) TO trading_readers;
