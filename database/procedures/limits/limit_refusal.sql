SET LOCAL ROLE trading_procedures;

-- The limits that bind what adds exposure. What only reduces is never asked here.
-- A new limit is a column of effective_limits, a line in limit_refusal and a sentence in broken_limit; what it reads
-- beside is a field of limit_facts, which asked_facts fills.

-- Why the order of p_case breaks a limit: the first in the order below, NULL when none does. p_terms: the limits, the
-- instrument and its quote.
CREATE OR REPLACE FUNCTION limit_refusal(
    p_account accounts, p_terms order_terms, p_case limit_case, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_facts limit_facts;
BEGIN
    IF NOT is_limited(p_terms) THEN
        RETURN NULL;
    END IF;
    -- What adds exposure has margin reserved; where orders leave for a venue, those that only reduce count as trades too.
    IF p_account.margin_reserved > 0 OR p_terms.venue <> 'internal' THEN
        p_case := with_flight(p_account, p_terms, p_case);
    END IF;
    v_facts := asked_facts(p_account, p_terms, p_case, p_at);
    v_facts.broken := CASE
        WHEN p_terms.is_restricted THEN 'restricted_symbols'
        WHEN p_case.order_quantity > p_terms.max_order_quantity THEN 'max_order_quantity'
        WHEN p_case.is_new AND v_facts.collar_deviation > p_terms.price_collar_percent THEN 'price_collar_percent'
        WHEN p_terms.stop_loss_required AND p_case.stop_loss IS NULL THEN 'stop_loss_required'
        WHEN v_facts.stop_distance < p_terms.stop_loss_min_percent THEN 'stop_loss_min_percent'
        WHEN v_facts.stop_distance > p_terms.stop_loss_max_percent THEN 'stop_loss_max_percent'
        WHEN v_facts.duplicate_age_ms < p_terms.duplicate_window_ms THEN 'duplicate_window_ms'
        WHEN v_facts.recent_orders + p_case.orders > p_terms.order_rate_limit THEN 'order_rate_limit'
        WHEN v_facts.order_notional > p_terms.max_order_notional THEN 'max_order_notional'
        WHEN p_case.opens AND p_case.open_positions >= p_terms.max_positions THEN 'max_positions'
        WHEN v_facts.held > p_terms.max_position_size THEN 'max_position_size'
        WHEN v_facts.exposure > p_terms.max_exposure THEN 'max_exposure'
        WHEN v_facts.exposure > p_terms.concentration_from_exposure
            AND v_facts.symbol_exposure * 100 > p_terms.max_concentration_percent * v_facts.exposure
            THEN 'max_concentration_percent'
        WHEN v_facts.trades >= p_terms.daily_trade_limit THEN 'daily_trade_limit'
        WHEN v_facts.loss >= p_terms.max_daily_loss THEN 'max_daily_loss'
        WHEN v_facts.drawdown_percent >= p_terms.max_drawdown_percent THEN 'max_drawdown_percent'
    END;
    IF v_facts.broken IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN broken_limit(p_account, p_terms, p_case, v_facts);
END
$$;

-- Whether anything is asked at all; put in line, for who would make a case first.
CREATE OR REPLACE FUNCTION is_limited(p_terms order_terms) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_terms.is_restricted OR p_terms.stop_loss_required OR num_nonnulls(
        p_terms.max_order_quantity, p_terms.max_order_notional, p_terms.price_collar_percent,
        p_terms.stop_loss_min_percent, p_terms.stop_loss_max_percent, p_terms.duplicate_window_ms,
        p_terms.order_rate_limit, p_terms.max_positions, p_terms.max_position_size, p_terms.max_exposure,
        p_terms.max_concentration_percent, p_terms.daily_trade_limit, p_terms.max_daily_loss,
        p_terms.max_drawdown_percent
    ) > 0
$$;

-- What the limits that are set have to know, NULL where none asks. The collar's deviation is that of the order's prices
-- from the side of the quote that it takes, in percent; the stop's distance that from the price that it is judged at.
-- What is read is a statement each, because starting one costs more than what it reads; all see what the caller's saw.
CREATE OR REPLACE FUNCTION asked_facts(
    p_account accounts, p_terms order_terms, p_case limit_case, p_at timestamptz
) RETURNS limit_facts
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_facts limit_facts;
    v_lot numeric;
BEGIN
    IF num_nonnulls(p_terms.max_order_notional, p_terms.max_exposure, p_terms.max_concentration_percent) > 0 THEN
        v_lot := exposure_amount(
            p_terms.asset_class, p_terms.base_currency, p_terms.quote_currency, p_terms.contract_size, p_case.price,
            p_account.currency, p_at
        );
        v_facts.order_notional := round_money(v_lot * p_case.order_quantity, p_account.currency);
    END IF;
    v_facts.collar_deviation := collar_deviation(
        p_case.limit_price, p_case.stop_price, CASE p_case.side WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END
    );
    v_facts.stop_distance := abs(p_case.price - p_case.stop_loss) * 100 / p_case.price;
    IF num_nonnulls(p_terms.order_rate_limit, p_terms.duplicate_window_ms) > 0 THEN
        SELECT r.recent_orders, r.duplicate_age_ms INTO v_facts.recent_orders, v_facts.duplicate_age_ms
        FROM recent_orders(p_account, p_terms, p_case, p_at) AS r;
    END IF;
    IF num_nonnulls(p_terms.max_exposure, p_terms.max_concentration_percent) > 0 THEN
        SELECT x.held, x.symbol_exposure, x.exposure INTO v_facts.held, v_facts.symbol_exposure, v_facts.exposure
        FROM exposure_with(p_account, p_terms, p_case, v_lot * p_case.added, p_at) AS x;
    ELSIF p_terms.max_position_size IS NOT NULL THEN
        SELECT h.held INTO v_facts.held FROM held_lots(p_account, p_terms, p_case) AS h;
    END IF;
    IF num_nonnulls(p_terms.daily_trade_limit, p_terms.max_daily_loss, p_terms.max_drawdown_percent) > 0 THEN
        SELECT d.day_ends_at, d.trades, d.loss, d.drawdown_percent
        INTO v_facts.day_ends_at, v_facts.trades, v_facts.loss, v_facts.drawdown_percent
        FROM day_so_far(p_account, p_terms, p_case, p_at) AS d;
    END IF;
    RETURN v_facts;
END
$$;

-- The case with what waits for a venue's answer counted as if it had filled.
CREATE OR REPLACE FUNCTION with_flight(
    p_account accounts, p_terms order_terms, p_case limit_case
) RETURNS limit_case
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_flight record;
BEGIN
    SELECT
        count(*) FILTER (WHERE is_sent(o.idempotency_key, o.contingency)) AS orders,
        count(*) FILTER (WHERE r.adds_exposure AND o.filled_quantity = 0) AS opening,
        coalesce(sum(o.quantity - o.filled_quantity) FILTER (
            WHERE r.adds_exposure AND o.symbol = p_terms.symbol AND o.side = p_case.side
        ), 0) AS lots
    INTO v_flight
    FROM venue_routes AS r
    INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
    WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done';
    p_case.open_positions := p_case.open_positions + v_flight.opening;
    p_case.orders_in_flight := v_flight.orders;
    p_case.lots_in_flight := v_flight.lots;
    RETURN p_case;
END
$$;

-- How far the prices of an order lie from p_reference, the farther one, in percent of that.
CREATE OR REPLACE FUNCTION collar_deviation(p_limit numeric, p_stop numeric, p_reference numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT greatest(abs(p_limit - p_reference), abs(p_stop - p_reference)) * 100 / p_reference
$$;

-- The collar alone, of an order that waits for another one: the rest is judged when a price touches it. One that can
-- only reduce is never refused.
CREATE OR REPLACE FUNCTION collar_refusal(request jsonb, p_account accounts, p_terms order_terms) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_facts limit_facts;
BEGIN
    v_facts.broken := 'price_collar_percent';
    v_facts.collar_deviation := collar_deviation(
        (request ->> 'limit_price')::numeric, (request ->> 'stop_price')::numeric,
        CASE request ->> 'side' WHEN 'buy' THEN p_terms.ask ELSE p_terms.bid END
    );
    IF v_facts.collar_deviation > p_terms.price_collar_percent AND request -> 'reduce_only' IS DISTINCT FROM 'true' THEN
        RETURN broken_limit(p_account, p_terms, new_limit_case(request, NULL, NULL, NULL, NULL), v_facts);
    END IF;
    RETURN NULL;
END
$$;

-- Whether an order was sent by somebody. What the platform closes by itself, by a stop of a position, a stop-out or a
-- wind-down, comes without a key and belongs to no group.
CREATE OR REPLACE FUNCTION is_sent(p_key text, p_contingency text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT num_nonnulls(p_key, p_contingency) > 0
$$;

-- Orders sent within the window of the rate, and how long ago the last one was that looks the same. One that only
-- reduces is none that adds, however it looks: a close, an exit.
-- The bound on the id, which starts with its time, lets the primary key find them; created_at decides.
CREATE OR REPLACE FUNCTION recent_orders(
    p_account accounts, p_terms order_terms, p_case limit_case, p_at timestamptz
) RETURNS TABLE (recent_orders bigint, duplicate_age_ms numeric)
LANGUAGE sql STABLE AS $$
    SELECT
        count(*) FILTER (WHERE o.created_at > p_at - p_terms.order_rate_window_s * interval '1 s'),
        1000 * extract(EPOCH FROM p_at - max(o.created_at) FILTER (
            WHERE o.symbol = p_terms.symbol AND o.side = p_case.side AND o.order_type = p_case.order_type
            AND o.quantity = p_case.order_quantity AND o.id IS DISTINCT FROM p_case.replaces_order_id
            AND NOT o.reduce_only AND o.status <> 'replaced' AND is_alike(o, p_case.asked)
        ))
    FROM orders AS o
    WHERE p_case.is_new
        AND o.user_id = p_account.user_id AND o.account_id = p_account.id AND o.status <> 'denied'
        AND is_sent(o.idempotency_key, o.contingency)
        AND o.id >= uuidv7_floor(p_at - greatest(
            CASE WHEN p_terms.order_rate_limit IS NOT NULL THEN p_terms.order_rate_window_s * interval '1 s' END,
            p_terms.duplicate_window_ms * interval '1 ms'
        ))
$$;

-- Whether an order is what p_asked asks for, exits of its bracket included, but for symbol, side, type and quantity.
-- What trails gets its prices from the market.
CREATE OR REPLACE FUNCTION is_alike(p_order orders, p_asked jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT (
            p_order.trail_amount, p_order.trail_percent, p_order.limit_offset, p_order.display_quantity,
            p_order.display_variance, p_order.stop_loss, p_order.take_profit
        ) IS NOT DISTINCT FROM (
            a.trail_amount, a.trail_percent, a.limit_offset, a.display_quantity, a.display_variance, a.stop_loss,
            a.take_profit
        )
        AND p_order.time_in_force = a.time_in_force
        AND (
            num_nonnulls(p_order.trail_amount, p_order.trail_percent) > 0
            OR (p_order.limit_price, p_order.stop_price) IS NOT DISTINCT FROM (a.limit_price, a.stop_price)
        )
        AND unmet_conditions(p_order.conditions) IS NOT DISTINCT FROM unmet_conditions(a.conditions)
        AND (
            SELECT ARRAY[min(x.stop_price), min(x.limit_price) FILTER (WHERE x.stop_price IS NULL)]
            FROM orders AS x
            WHERE x.user_id = p_order.user_id AND x.id = ANY (p_order.linked_order_ids)
                AND x.contingency = 'bracket_exit'
        ) = ARRAY[a.exit_stop_price, a.exit_limit_price]
    FROM jsonb_to_record(p_asked) AS a (
        trail_amount numeric, trail_percent numeric, limit_offset numeric, display_quantity numeric,
        display_variance numeric, stop_loss numeric, take_profit numeric, time_in_force text, limit_price numeric,
        stop_price numeric, conditions jsonb, exit_stop_price numeric, exit_limit_price numeric
    )
$$;

-- The lots of the symbol on the order's side, with what it adds and what is in flight.
CREATE OR REPLACE FUNCTION held_lots(p_account accounts, p_terms order_terms, p_case limit_case)
RETURNS TABLE (held numeric)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(p.quantity), 0) + p_case.lots_in_flight + p_case.added
    FROM positions AS p
    WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
        AND p.symbol = p_terms.symbol AND p.side = CASE p_case.side WHEN 'buy' THEN 'long' ELSE 'short' END
$$;

-- The exposure of the symbol and of the account with p_added of it, in account currency: open positions at their marks,
-- longs and shorts both counted, and what is in flight to a venue at the price that it was accepted at. With it what
-- held_lots tells, of the same rows.
DROP FUNCTION IF EXISTS exposure_with(accounts, order_terms, limit_case, numeric, timestamptz);
CREATE FUNCTION exposure_with(
    p_account accounts, p_terms order_terms, p_case limit_case, p_added numeric, p_at timestamptz
) RETURNS TABLE (held numeric, symbol_exposure numeric, exposure numeric)
LANGUAGE sql STABLE AS $$
    SELECT
        coalesce(sum(e.quantity) FILTER (
            WHERE e.symbol = p_terms.symbol AND e.side = CASE p_case.side WHEN 'buy' THEN 'long' ELSE 'short' END
        ), 0) + p_case.lots_in_flight + p_case.added,
        round_money(coalesce(sum(e.amount) FILTER (WHERE e.symbol = p_terms.symbol), 0) + p_added, p_account.currency),
        round_money(coalesce(sum(e.amount), 0) + p_added, p_account.currency)
    FROM (
        SELECT h.symbol, h.side, h.quantity, exposure_amount(
            i.asset_class, i.base_currency, i.quote_currency, h.quantity * i.contract_size, h.price,
            p_account.currency, p_at
        ) AS amount
        FROM (
            SELECT p.symbol, p.side, p.quantity, CASE p.side WHEN 'long' THEN q.bid ELSE q.ask END AS price
            FROM positions AS p
            LEFT JOIN quotes AS q USING (symbol)
            WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
                AND p.id IS DISTINCT FROM p_case.closed_position_id
            UNION ALL
            -- No side: p_case counts these lots.
            SELECT o.symbol, NULL, o.quantity - o.filled_quantity, r.reference_price
            FROM venue_routes AS r
            INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
            WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done'
                AND r.adds_exposure
        ) AS h
        INNER JOIN instruments AS i USING (symbol)
    ) AS e
$$;

-- What the account's day and its peak have come to: trades of orders that were sent, those in flight too, the loss
-- against the equity that the day began with, and how far equity lies below its peak. A day that is not opened yet has
-- had no trade and no loss.
CREATE OR REPLACE FUNCTION day_so_far(
    p_account accounts, p_terms order_terms, p_case limit_case, p_at timestamptz
) RETURNS TABLE (day_ends_at timestamptz, trades bigint, loss numeric, drawdown_percent numeric)
LANGUAGE sql STABLE AS $$
    SELECT
        d.ends_at,
        (
            SELECT count(*) FROM (
                SELECT FROM orders AS o
                WHERE p_terms.daily_trade_limit IS NOT NULL AND d.ends_at > p_at
                    AND o.user_id = p_account.user_id AND o.account_id = p_account.id AND o.status = 'filled'
                    AND o.executed_at >= d.starts_at AND is_sent(o.idempotency_key, o.contingency)
                UNION ALL
                -- Those that ended with a part filled are trades of the day of that part.
                SELECT FROM orders AS o
                WHERE p_terms.daily_trade_limit IS NOT NULL AND d.ends_at > p_at
                    AND o.user_id = p_account.user_id AND o.account_id = p_account.id
                    AND o.status IN ('canceled', 'expired', 'replaced') AND o.filled_quantity > 0
                    AND o.updated_at >= d.starts_at AND is_sent(o.idempotency_key, o.contingency)
                    AND EXISTS (
                        SELECT FROM fills AS f
                        WHERE f.user_id = o.user_id AND f.order_id = o.id AND f.transact_time >= d.starts_at
                    )
                LIMIT p_terms.daily_trade_limit
            ) AS t
        ) + p_case.orders_in_flight,
        CASE WHEN d.ends_at > p_at THEN d.start_equity + d.transferred - p_case.equity ELSE 0 END,
        CASE WHEN d.peak_equity > p_case.equity AND d.peak_equity > 0
            THEN (d.peak_equity - p_case.equity) * 100 / d.peak_equity
            ELSE 0
        END
    FROM (VALUES (1)) AS one (row)
    LEFT JOIN LATERAL (
        SELECT * FROM account_days AS a
        WHERE a.user_id = p_account.user_id AND a.account_id = p_account.id
        ORDER BY a.starts_at DESC LIMIT 1
    ) AS d ON true
    OFFSET 0
$$;

-- A new order: p_quantity lots are filled, p_added of them add to the exposure, judged at p_price. p_position is what
-- it meets, all NULL without. What the account holds, and what is in flight, is for the caller to say.
CREATE OR REPLACE FUNCTION new_limit_case(
    request jsonb, p_position positions, p_quantity numeric, p_added numeric, p_price numeric
) RETURNS limit_case
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_case limit_case := ROW(
        request ->> 'side', request ->> 'order_type', p_quantity, p_added, p_price, NULL, NULL, NULL, NULL,
        coalesce(
            request ->> 'stop_loss', request ->> 'exit_stop_price',
            CASE WHEN p_added = p_quantity THEN (
                CASE WHEN p_position.trail_distance IS NULL THEN p_position.stop_loss
                    ELSE (at_present_trail(p_position)).stop_loss
                END
            )::text END
        )::numeric,
        true, 1, NULL, p_position.id IS NULL OR p_added < p_quantity,
        CASE WHEN p_added < p_quantity THEN p_position.id END, 0, 0, 0, 0, request
    )::limit_case;
BEGIN
    IF request ?| ARRAY[
        'limit_price', 'stop_price', 'trail_amount', 'trail_percent', 'group_size', 'replaces_order_id'
    ] THEN
        v_case.limit_price := request ->> 'limit_price';
        v_case.stop_price := request ->> 'stop_price';
        v_case.trail_amount := request ->> 'trail_amount';
        v_case.trail_percent := request ->> 'trail_percent';
        v_case.orders := coalesce((request ->> 'group_size')::integer, 1);
        v_case.replaces_order_id := request ->> 'replaces_order_id';
    END IF;
    RETURN v_case;
END
$$;

-- A working order that a price has touched, of which p_added lots add at p_price now. It is no new order: it was sent
-- once, so that rate, duplicates and the collar are behind it.
CREATE OR REPLACE FUNCTION working_limit_case(
    p_order orders, p_position positions, p_added numeric, p_price numeric
) RETURNS limit_case
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_turns boolean := held_against(p_position, p_order.side) > 0;
BEGIN
    RETURN ROW(
        p_order.side, p_order.order_type, p_order.quantity, p_added, p_price, NULL, NULL, NULL, NULL,
        coalesce(
            p_order.stop_loss,
            CASE WHEN p_order.contingency = 'oto_parent' THEN (
                SELECT o.stop_price FROM orders AS o
                WHERE o.user_id = p_order.user_id AND o.id = ANY (p_order.linked_order_ids)
                    AND o.contingency = 'bracket_exit' AND o.stop_price IS NOT NULL
                    -- Its owner may have canceled it.
                    AND o.status IN ('new', 'triggered', 'partially_filled')
            ) END,
            CASE WHEN NOT v_turns THEN (at_present_trail(p_position)).stop_loss END
        ),
        false, 0, NULL, p_position.id IS NULL OR v_turns, CASE WHEN v_turns THEN p_position.id END, 0, 0, 0, 0, NULL
    )::limit_case;
END
$$;

-- The refusal of the limit that p_facts names, in words that say what to do.
CREATE OR REPLACE FUNCTION broken_limit(
    p_account accounts, p_terms order_terms, p_case limit_case, p_facts limit_facts
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE p_facts.broken
        WHEN 'restricted_symbols' THEN limit_refused(
            p_facts.broken, 'symbol', p_terms.symbol, 'a symbol that you may trade',
            format('You may not add to %s; you may close what you hold. Trade another symbol.', p_terms.symbol)
        )
        WHEN 'stop_loss_required' THEN limit_refused(
            p_facts.broken, 'stop_loss', NULL, 'required',
            'Your orders need a stop loss. Send the order again with one.'
        )
        WHEN 'stop_loss_min_percent' THEN limit_refused(
            p_facts.broken, 'stop_loss', p_case.stop_loss::text,
            format('at least %s percent from %s', p_terms.stop_loss_min_percent, p_case.price),
            format('Your stop loss must be at least %s percent away from the price; move it further away.',
                p_terms.stop_loss_min_percent)
        )
        WHEN 'stop_loss_max_percent' THEN limit_refused(
            p_facts.broken, 'stop_loss', p_case.stop_loss::text,
            format('at most %s percent from %s', p_terms.stop_loss_max_percent, p_case.price),
            format('Your stop loss may be at most %s percent away from the price; move it closer.',
                p_terms.stop_loss_max_percent)
        )
        WHEN 'price_collar_percent' THEN limit_refused(
            p_facts.broken, CASE WHEN p_case.limit_price IS NULL THEN 'stop_price' ELSE 'limit_price' END,
            coalesce(p_case.limit_price, p_case.stop_price)::text,
            format('at most %s percent from the quote', p_terms.price_collar_percent),
            format('The price lies %s percent away from the quote, at most %s are allowed. Check the price.',
                round(p_facts.collar_deviation, 2), p_terms.price_collar_percent)
        )
        WHEN 'duplicate_window_ms' THEN limit_refused(
            p_facts.broken, 'duplicate_window_ms', trim_scale(p_facts.duplicate_age_ms)::text,
            'at least ' || p_terms.duplicate_window_ms,
            format('The same order was taken less than %s ms ago. If you mean a second one, send it again after that.',
                p_terms.duplicate_window_ms)
        )
        WHEN 'order_rate_limit' THEN limit_violation(
            p_facts.broken, p_facts.recent_orders + p_case.orders, p_terms.order_rate_limit,
            format('orders in %s s; send fewer', p_terms.order_rate_window_s)
        )
        WHEN 'max_order_quantity' THEN limit_violation(
            p_facts.broken, p_case.order_quantity, p_terms.max_order_quantity,
            'lots an order; reduce the quantity', 'quantity'
        )
        WHEN 'max_order_notional' THEN limit_violation(
            p_facts.broken, p_facts.order_notional, p_terms.max_order_notional,
            p_account.currency || ' of value an order; reduce the quantity', 'quantity'
        )
        WHEN 'max_positions' THEN limit_violation(
            p_facts.broken, p_case.open_positions + 1, p_terms.max_positions, 'open positions; close one first'
        )
        WHEN 'max_position_size' THEN limit_violation(
            p_facts.broken, p_facts.held, p_terms.max_position_size,
            'lots of ' || p_terms.symbol || '; reduce the quantity'
        )
        WHEN 'max_exposure' THEN limit_violation(
            p_facts.broken, p_facts.exposure, p_terms.max_exposure,
            p_account.currency || ' of exposure; reduce the quantity or close a position'
        )
        WHEN 'max_concentration_percent' THEN limit_violation(
            p_facts.broken, round(p_facts.symbol_exposure * 100 / p_facts.exposure, 2),
            p_terms.max_concentration_percent,
            format('percent of your exposure in one symbol; reduce the quantity of %s', p_terms.symbol)
        )
        WHEN 'daily_trade_limit' THEN limit_violation(
            p_facts.broken, p_facts.trades + 1, p_terms.daily_trade_limit,
            'trades a day; trade again when the next one begins'
        )
        WHEN 'max_daily_loss' THEN limit_violation(
            p_facts.broken, round_money(p_facts.loss, p_account.currency), p_terms.max_daily_loss,
            p_account.currency || ' of loss a day; you may close positions'
        )
        ELSE limit_violation(
            p_facts.broken, round(p_facts.drawdown_percent, 2), p_terms.max_drawdown_percent,
            'percent below your highest equity; you may close positions'
        )
    END;
END
$$;

-- A limit that is a number that must not be exceeded. p_field: of the request where changing it would do, else the
-- limit's own name.
CREATE OR REPLACE FUNCTION limit_violation(
    p_limit text, p_value numeric, p_bound numeric, p_unit text, p_field text DEFAULT NULL
) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT limit_refused(
        p_limit, coalesce(p_field, p_limit), p_value::text, 'at most ' || p_bound,
        format('Your limit is %s %s.', p_bound, p_unit)
    )
$$;

CREATE OR REPLACE FUNCTION limit_refused(
    p_limit text, p_field text, p_value text, p_constraint text, p_message text
) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT refusal(
        'RISK_LIMIT_VIOLATION', p_message, p_field, p_value, p_constraint, jsonb_build_object('limit', p_limit)
    )
$$;

GRANT EXECUTE ON FUNCTION limit_refusal(accounts, order_terms, limit_case, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION is_limited(order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION asked_facts(accounts, order_terms, limit_case, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION with_flight(accounts, order_terms, limit_case) TO trading_readers;
GRANT EXECUTE ON FUNCTION collar_deviation(numeric, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION collar_refusal(jsonb, accounts, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION is_sent(text, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION recent_orders(accounts, order_terms, limit_case, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION is_alike(orders, jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION held_lots(accounts, order_terms, limit_case) TO trading_readers;
GRANT EXECUTE ON FUNCTION exposure_with(accounts, order_terms, limit_case, numeric, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION day_so_far(accounts, order_terms, limit_case, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION new_limit_case(jsonb, positions, numeric, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION working_limit_case(orders, positions, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION broken_limit(accounts, order_terms, limit_case, limit_facts) TO trading_readers;
GRANT EXECUTE ON FUNCTION limit_violation(text, numeric, numeric, text, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION limit_refused(text, text, text, text, text) TO trading_readers;
