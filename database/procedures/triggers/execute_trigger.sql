SET LOCAL ROLE trading_procedures;

-- Executes what a price has touched, in one transaction: the account's lock, then whether it still holds, then the fill
-- at the quote that touched it, whatever the price has become since. The queue's row goes with it.
-- request {version: 1, user_id, subject_id, account_id, holder, fencing, request_id?}
-- -> {state, subject_id, kind, order_id, sequence}; `sequence` is the account's last, NULL where nothing happened.
--   state of an order: triggered | partially_filled | filled | rejected | canceled | expired; of an exit: filled, or
--   routed where a venue is to close the position, by the order_id that has still to be handed to it; of the order
--   whose condition is met: those, and new while nothing more comes of it
--   idle: touched no more, or ended meanwhile. lost: the row is gone or another worker's.
-- Raises TR004 where a rate or another position's quote is too old; the row stays for the next try.
CREATE OR REPLACE FUNCTION execute_trigger(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_touch trigger_queue;
    v_at timestamptz;
    v_state text;
    v_sent uuid;
BEGIN
    PERFORM check_request_version(request);
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    v_at := clock_timestamp();
    v_touch := leased_trigger(request);
    IF v_touch.subject_id IS NULL THEN
        RETURN jsonb_build_object(
            'state', 'lost', 'subject_id', request -> 'subject_id', 'order_id', NULL, 'sequence', NULL
        );
    END IF;
    IF v_touch.kind IN ('order', 'expiry') THEN
        v_state := execute_touched_order(request, v_account, v_touch, v_at);
    ELSIF v_touch.kind = 'condition' THEN
        v_state := execute_met_condition(request, v_account, v_touch, v_at);
    ELSE
        SELECT e.state, e.sent INTO v_state, v_sent FROM execute_touched_exit(request, v_account, v_touch, v_at) AS e;
    END IF;
    -- Last, because a batch of quotes that touches the same waits for it.
    DELETE FROM trigger_queue WHERE user_id = v_touch.user_id AND subject_id = v_touch.subject_id;
    RETURN jsonb_build_object(
        'state', v_state, 'subject_id', v_touch.subject_id, 'kind', v_touch.kind, 'order_id', v_sent, 'sequence', (
            SELECT nullif(a.last_sequence, v_account.last_sequence) FROM accounts AS a
            WHERE a.user_id = v_account.user_id AND a.id = v_account.id
        )
    );
END
$$;

CREATE OR REPLACE FUNCTION execute_touched_order(
    request jsonb, p_account accounts, p_touch trigger_queue, p_at timestamptz
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders;
    v_terms order_terms;
BEGIN
    SELECT * INTO v_order FROM orders AS o
    WHERE o.user_id = p_touch.user_id AND o.id = p_touch.subject_id
    FOR NO KEY UPDATE;
    v_order := at_trailing_level(v_order);
    IF v_order.status NOT IN ('new', 'triggered', 'partially_filled') THEN
        RETURN 'idle';
    END IF;
    IF v_order.expires_at <= p_touch.quoted_at THEN
        RETURN (end_order(request, p_account, v_order, 'expired', NULL, 'Its time in force has ended', p_at)).status;
    END IF;
    -- Nothing touches what has no price: it is held.
    IF p_touch.kind = 'expiry' OR NOT is_touched(v_order, p_touch) THEN
        RETURN 'idle';
    END IF;
    v_terms := terms_at_touch(p_account, v_order.symbol, p_touch);
    IF v_terms.symbol IS NULL THEN
        RETURN (end_order(
            request, p_account, v_order, 'rejected', 'TRADING_HALTED', v_order.symbol || ' is not traded any more.', p_at
        )).status;
    END IF;
    RETURN (act_on_touch(request, p_account, v_order, v_terms, p_at)).status;
END
$$;

-- The instrument, the user and the limits as they are now, with the quote that touched; all NULL for an instrument that
-- is not traded any more.
CREATE OR REPLACE FUNCTION terms_at_touch(p_account accounts, p_symbol text, p_touch trigger_queue) RETURNS order_terms
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_terms order_terms;
BEGIN
    SELECT * INTO v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = p_symbol;
    IF FOUND THEN
        v_terms.bid := p_touch.bid;
        v_terms.ask := p_touch.ask;
        v_terms.quoted_at := p_touch.quoted_at;
        v_terms.source := p_touch.source;
    END IF;
    RETURN v_terms;
END
$$;

-- Which exit of a position the quote of p_touch touches, the stops before the take profit; NULL for none. One that
-- comes before what the quote has touched was set since: it waits for a price of its own time.
CREATE OR REPLACE FUNCTION exit_of_touch(
    p_position positions, p_trail trailing_levels, p_touch trigger_queue
) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_exit text;
BEGIN
    IF p_touch.kind <> 'stop_loss' THEN
        p_position.stop_loss := NULL;
    END IF;
    v_exit := touched_exit(p_position, p_touch.bid, p_touch.ask);
    IF v_exit IS DISTINCT FROM 'stop_loss' AND p_touch.kind <> 'take_profit'
        AND touches(p_trail.watch, p_trail.level, p_touch.bid, p_touch.ask) THEN
        RETURN 'trailing_stop';
    END IF;
    RETURN v_exit;
END
$$;

-- The form that returned the state alone was of an earlier release.
DROP FUNCTION IF EXISTS execute_touched_exit(jsonb, accounts, trigger_queue, timestamptz);
-- Closes a position at a stop or its take profit by an order of the platform's own. A stop is filled at the quote that
-- touched it, with slippage; a take profit at the quote, which is never worse than its level. One that is held at a
-- venue is closed there, at what the market is by then: the order of it is `sent`, once.
CREATE FUNCTION execute_touched_exit(
    request jsonb, p_account accounts, p_touch trigger_queue, p_at timestamptz, OUT state text, OUT sent uuid
)
LANGUAGE plpgsql AS $$
DECLARE
    v_position positions;
    v_trail trailing_levels;
    v_exit text;
    v_terms order_terms;
    v_fill order_fill;
    v_side text;
    v_quantity numeric;
    v_booked jsonb;
BEGIN
    state := 'idle';
    SELECT * INTO v_position FROM positions AS p
    WHERE p.user_id = p_touch.user_id AND p.id = p_touch.subject_id
    FOR NO KEY UPDATE;
    v_trail := trailing_level(v_position.user_id, v_position.id);
    v_exit := exit_of_touch(v_position, v_trail, p_touch);
    v_terms := terms_at_touch(p_account, v_position.symbol, p_touch);
    IF v_position.status <> 'open' OR v_exit IS NULL OR v_terms.symbol IS NULL THEN
        RETURN;
    END IF;
    v_quantity := lots_to_close(p_account, v_position, p_at);
    IF v_quantity = 0 THEN
        RETURN;
    END IF;
    v_side := CASE v_position.side WHEN 'long' THEN 'sell' ELSE 'buy' END;
    v_fill := CASE v_exit
        WHEN 'take_profit' THEN price_at_quote(v_terms, v_side)
        ELSE price_order(
            v_terms, v_side, v_quantity, p_account.id || ':' || v_position.id,
            v_terms.trade_always AND NOT market_is_open(v_terms.calendar, v_terms.quoted_at)
        )
    END;
    v_fill.commission := charged_commission(p_account, v_terms, v_quantity, p_at);
    v_booked := close_or_send(jsonb_build_object(
        'symbol', v_position.symbol, 'order_type', 'market', 'side', v_side, 'quantity', v_quantity,
        'time_in_force', 'ioc', 'reduce_only', true, 'component_name', v_exit, 'actor', 'platform',
        'position_id', v_position.id, 'request_id', request -> 'request_id', 'notice', jsonb_build_object(
            'reason', CASE v_exit
                WHEN 'stop_loss' THEN format('Stop loss %s reached', v_position.stop_loss)
                WHEN 'trailing_stop' THEN format('Trailing stop %s reached, from %s', v_trail.level, v_trail.mark)
                ELSE format('Take profit %s reached', v_position.take_profit)
            END
        )
    ), p_account, v_terms, v_fill, v_position, p_at);
    state := CASE v_booked ->> 'outcome' WHEN 'pending_new' THEN 'routed' ELSE 'filled' END;
    sent := CASE state WHEN 'routed' THEN (v_booked ->> 'order_id')::uuid END;
END
$$;

GRANT EXECUTE ON FUNCTION execute_trigger(jsonb) TO function_triggers;
