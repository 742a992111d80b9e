SET LOCAL ROLE trading_procedures;

-- Stop-out: what an account can no longer carry is closed by the platform, one position a transaction.

-- One step for one account, valued again under its lock: all its working orders are canceled, then the one position
-- that its profile's policy takes first is closed at the market (of equals the oldest). A position that cannot be
-- closed now, because its market is closed or its quote too old, is passed over for the next in order. One that is held
-- at a venue is closed there: its order is sent, and what is on its way counts as closed, at its mark, when the level
-- is looked at again. So another position goes only if that is not enough.
--   largest_loss_first: the largest loss in account currency · most_margin_first: the most margin · fifo: the oldest ·
--   smallest_partial_step: the largest loss, but of it no more than brings the account up to the release level of its
--   stop-out; all of it where that is not enough.
-- By each, what is covered whole by the other side of its symbol comes behind what is not, where hedges need less:
-- closing it would set little margin free, or need more, and leave a risk open that there was none of.
-- Safe to repeat, and at once from many places: each step looks at the level anew, so it carries no key.
-- request {version: 1, user_id, account_id, request_id?}
-- -> {state, margin_level, threshold, order_id, venue, position_id, quantity, realized_pnl,
--   canceled_orders: [order_id], sequence}
--   recovered: the level is above the stop-out level, or no margin is used. Nothing was done.
--   skipped: a quote that the valuation needs is missing or too old while its market is open. Nothing was done.
--   waiting: no position can be closed now; orders may have been canceled.
--   more, done: a position was closed, and the level is then still at or below the stop-out level, or not. `more` also
--     when an order was sent that is not enough.
--   routed: what is on its way to a venue is enough, or all that there is.
-- margin_level is what the step left, in percent; NULL where no margin is used. order_id, position_id,
-- quantity and realized_pnl are of the close, venue that to which its order has still to be handed, sequence that of
-- the step's event, each NULL without one.
-- One plan for whatever account: planning margin_levels for each anew took four times as long as running it.
CREATE OR REPLACE FUNCTION stop_out_step(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_account accounts;
    v_at timestamptz;
    v_level record;
    v_position positions;
    v_notice jsonb;
    v_booked jsonb := '{}';
    v_in_flight numeric;
    v_state text := 'waiting';
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    v_at := clock_timestamp();
    SELECT * INTO STRICT v_level FROM margin_levels(ARRAY[v_account.id], v_at);
    IF NOT v_level.stop_out_due THEN
        v_state := CASE WHEN v_level.unpriced IS NULL THEN 'recovered' ELSE 'skipped' END;
        RETURN stop_out_answer(v_state, v_level.margin_level, v_level.stop_out_level, '[]', '{}');
    END IF;

    v_notice := stop_out_notice(v_level.margin_level, v_level.stop_out_level);
    v_notice := v_notice || jsonb_build_object('orders', cancel_audited_orders(
        v_account, orders_to_call_off(v_account, NULL), '{"actor": "platform"}', v_notice ->> 'reason', v_at, NULL
    ));
    -- With the audit of the canceled orders on it.
    SELECT * INTO STRICT v_account FROM accounts WHERE user_id = v_account.user_id AND id = v_account.id;
    v_in_flight := margin_in_flight(v_account);
    IF needs_closing(v_level, v_in_flight) THEN
        v_position := position_to_stop_out(v_account, v_level.stop_out_policy, v_at);
    END IF;
    IF v_position.id IS NOT NULL THEN
        v_booked := close_stopped_out(request, v_account, v_position, v_level, v_in_flight, v_notice, v_at);
        -- Only the worth has changed, and what is in flight.
        SELECT judged_level(w.equity, w.margin_used, w.open_positions), w.equity, w.margin_used, w.open_positions
        INTO STRICT v_level.margin_level, v_level.equity, v_level.margin_used, v_level.open_positions
        FROM account_valuation(v_account.user_id, v_account.id, v_at) AS w;
        v_in_flight := margin_in_flight(v_account);
        v_state := CASE
            WHEN needs_closing(v_level, v_in_flight) THEN 'more'
            WHEN v_level.margin_level <= v_level.stop_out_level THEN 'routed'
            ELSE 'done'
        END;
    ELSIF v_in_flight > 0 THEN
        v_state := 'routed';
    END IF;
    IF v_position.id IS NULL AND v_notice -> 'orders' <> '[]' THEN
        v_booked := tell_stopped_out_orders(request, v_account, v_notice, account_fact(
            v_account, v_level.balance, v_level.unrealized_pnl, v_level.margin_used, v_level.hedged_margin_credit
        ), v_at);
    END IF;
    RETURN stop_out_answer(
        v_state, v_level.margin_level, v_level.stop_out_level, v_notice -> 'orders', v_booked
    );
END
$$;

-- Whether an account would stand at or below its stop-out level if what is in flight had closed what it is sent to
-- close. p_level is its row of margin_levels. One without margin is judged when nothing is in flight any more.
CREATE OR REPLACE FUNCTION needs_closing(p_level record, p_in_flight numeric) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN coalesce(judged_level(
        p_level.equity, p_level.margin_used - p_in_flight,
        CASE p_in_flight WHEN 0 THEN p_level.open_positions ELSE 0 END
    ) <= p_level.stop_out_level, false);
END
$$;

CREATE OR REPLACE FUNCTION stop_out_answer(
    p_state text, p_margin_level numeric, p_threshold numeric, p_canceled jsonb, p_booked jsonb
) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
        'state', p_state, 'margin_level', round(p_margin_level, 2), 'threshold', p_threshold,
        'order_id', p_booked -> 'order_id', 'venue', p_booked -> 'venue', 'position_id', p_booked -> 'position_id',
        'quantity', p_booked -> 'quantity', 'realized_pnl', p_booked -> 'realized_pnl', 'sequence', p_booked -> 'sequence',
        'canceled_orders', jsonb_path_query_array(p_canceled, '$[*].order_id')
    )
$$;

-- Why, in words for the audit and in figures for the event.
CREATE OR REPLACE FUNCTION stop_out_notice(p_margin_level numeric, p_threshold numeric) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
        'event_type', 'stop_out.closed',
        'reason', format('Stop-out: margin level %s %% is at or below %s %%.', round(p_margin_level, 2), trim_scale(
            p_threshold
        )),
        'risk', jsonb_build_object(
            'type', 'stop_out', 'state', 'closed', 'margin_level', round(p_margin_level, 2), 'threshold', p_threshold
        )
    )
$$;

-- The position that is closed next; all NULL where none can be closed now.
CREATE OR REPLACE FUNCTION position_to_stop_out(
    p_account accounts, p_policy text, p_at timestamptz
) RETURNS positions
LANGUAGE sql AS $$
    SELECT p.*
    FROM valued_positions(p_account.user_id, p_account.id, p_at) AS v
    INNER JOIN positions AS p ON p.user_id = p_account.user_id AND p.id = v.position_id
    INNER JOIN order_terms AS t
        ON t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = v.symbol
    INNER JOIN symbol_sides(p_account.user_id, p_account.id) AS s ON v.symbol = s.symbol
    WHERE (t.trade_always OR market_is_open(t.calendar, p_at))
        AND quote_is_fresh(t, p_at)
        AND lots_to_close(p_account, p, p_at) > 0
    ORDER BY
        t.hedged_margin_percent < 100 AND uncovered_quantity(v.side, s.long_quantity, s.short_quantity) = 0,
        CASE p_policy
            WHEN 'fifo' THEN 0
            WHEN 'most_margin_first' THEN -v.margin_used
            ELSE v.unrealized_pnl
        END,
        p.created_at, p.id
    LIMIT 1
    FOR NO KEY UPDATE OF p
$$;

-- Closes the position, or what the policy takes of it, by an order of the platform's own; the answer of
-- close_or_send. p_level is the account's row of margin_levels, p_in_flight the margin that is on its way to be free.
CREATE OR REPLACE FUNCTION close_stopped_out(
    request jsonb, p_account accounts, p_position positions, p_level record, p_in_flight numeric, p_notice jsonb,
    p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_terms order_terms;
    v_quantity numeric := lots_to_close(p_account, p_position, p_at);
    v_fill order_fill;
BEGIN
    SELECT * INTO STRICT v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = p_position.symbol;
    IF p_level.stop_out_policy = 'smallest_partial_step' THEN
        v_quantity := smallest_part_to_close(
            p_account, v_terms, p_position, v_quantity, p_level.equity, p_level.margin_used - p_in_flight,
            p_level.stop_out_level, p_level.stop_out_release_level, p_at
        );
    END IF;
    IF holding_venue(p_account, v_terms, p_position) <> 'internal' THEN
        p_notice := jsonb_set(p_notice || '{"event_type": "stop_out.routed"}', '{risk,state}', '"routed"');
    END IF;
    v_fill := stop_out_fill(p_account, v_terms, p_position, v_quantity, p_at);
    RETURN close_or_send(jsonb_build_object(
        'symbol', p_position.symbol, 'order_type', 'market',
        'side', CASE p_position.side WHEN 'long' THEN 'sell' ELSE 'buy' END, 'quantity', v_quantity,
        'time_in_force', 'ioc', 'reduce_only', true, 'component_name', 'stop_out', 'actor', 'platform',
        'position_id', p_position.id, 'stop_out_policy', p_level.stop_out_policy,
        'request_id', request -> 'request_id',
        'notice', jsonb_set(p_notice, '{risk,position_id}', to_jsonb(p_position.id))
    ), p_account, v_terms, v_fill, p_position, p_at);
END
$$;

-- The price and the commission at which p_quantity of the position would be closed now.
CREATE OR REPLACE FUNCTION stop_out_fill(
    p_account accounts, p_terms order_terms, p_position positions, p_quantity numeric, p_at timestamptz
) RETURNS order_fill
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fill order_fill := price_order(
        p_terms, CASE p_position.side WHEN 'long' THEN 'sell' ELSE 'buy' END, p_quantity,
        p_account.id || ':' || p_position.id, NOT market_is_open(p_terms.calendar, p_at)
    );
BEGIN
    v_fill.commission := charged_commission(p_account, p_terms, p_quantity, p_at);
    RETURN v_fill;
END
$$;

-- The event of a step that could only cancel orders.
CREATE OR REPLACE FUNCTION tell_stopped_out_orders(
    request jsonb, p_account accounts, p_notice jsonb, p_worth jsonb, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET last_sequence = last_sequence + 1
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'stop_out.canceled', jsonb_build_object(
            'orders', p_notice -> 'orders', 'account', p_worth,
            'risk', jsonb_set(p_notice -> 'risk', '{state}', '"canceled"')
        ), request ->> 'request_id', p_at
    );
    RETURN jsonb_build_object('sequence', p_account.last_sequence + 1);
END
$$;

GRANT EXECUTE ON FUNCTION stop_out_step(jsonb) TO function_risk;
