SET LOCAL ROLE trading_procedures;

-- Books what a venue says it traded, as a fact: at its price, whatever has happened since the order was accepted. Named
-- by (venue, trade_id), so that hearing of it again changes nothing.
--
-- request {version: 1, user_id, order_id, venue, trade_id, quantity, price, venue_order_id?, retry_attempt?,
--   request_id?}
-- -> {outcome: 'booked' | 'known', status, filled_quantity, sequence}; `sequence` is that of the event, NULL for a
--   known fill.
-- Raises TR001 no such order, TR006 a value out of its bounds, TR012 a fill that cannot be: more than the order has
-- left, or a trade_id that stood for another trade, TR013 an order that is not with this venue or has ended there.
CREATE OR REPLACE FUNCTION book_venue_fill(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_order orders;
    v_route venue_routes;
    v_at timestamptz;
BEGIN
    PERFORM check_request_version(request);
    PERFORM check_venue_fill(request);
    v_account := lock_account_of_order(request);
    v_at := clock_timestamp();
    SELECT * INTO STRICT v_order FROM orders
    WHERE user_id = v_account.user_id AND id = (request ->> 'order_id')::uuid FOR NO KEY UPDATE;
    v_route := lock_route(v_order);
    IF venue_fill_is_known(request, v_order) THEN
        RETURN jsonb_build_object(
            'outcome', 'known', 'status', v_order.status, 'filled_quantity', v_order.filled_quantity, 'sequence', NULL
        );
    END IF;
    IF v_route.venue <> request ->> 'venue'
        OR v_order.status NOT IN ('pending_new', 'partially_filled', 'canceled', 'filled') THEN
        RAISE EXCEPTION 'Order % is % and not in flight to %.', v_order.id, v_order.status, request ->> 'venue'
        USING ERRCODE = 'TR013', DETAIL = jsonb_build_object(
            'field', 'order_id', 'value', v_order.id, 'constraint', 'an order in flight to this venue'
        )::text;
    END IF;
    IF v_order.filled_quantity + (request ->> 'quantity')::numeric > v_order.quantity THEN
        PERFORM refuse_fill(request, 'quantity', request ->> 'quantity', format(
            'at most %s, what the order has left', v_order.quantity - v_order.filled_quantity
        ));
    END IF;
    RETURN write_venue_fill(request, v_account, v_order, v_route, v_at);
END
$$;

CREATE OR REPLACE FUNCTION check_venue_fill(request jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- NaN is above every number.
    IF (request ->> 'quantity')::numeric > 0 AND (request ->> 'quantity')::numeric < 'Infinity'
        AND (request ->> 'price')::numeric > 0 AND (request ->> 'price')::numeric < 'Infinity'
        AND length(request ->> 'trade_id') BETWEEN 1 AND 128 THEN
        RETURN;
    END IF;
    PERFORM refuse_value('trade_id', request ->> 'trade_id', 'named, of a quantity and a price above 0');
END
$$;

CREATE OR REPLACE FUNCTION refuse_fill(request jsonb, p_field text, p_value text, p_constraint text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Fill % of venue % cannot be booked: % must be %.', request ->> 'trade_id', request ->> 'venue',
        p_field, p_constraint
    USING ERRCODE = 'TR012', DETAIL = jsonb_build_object(
        'field', p_field, 'value', p_value, 'constraint', p_constraint, 'order_id', request ->> 'order_id'
    )::text;
END
$$;

-- Whether this trade stands in the books; one that stands there with other figures is refused. A trade that closed one
-- position and opened another stands there in two parts.
CREATE OR REPLACE FUNCTION venue_fill_is_known(request jsonb, p_order orders) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_known record;
BEGIN
    SELECT sum(f.quantity) AS quantity, min(f.price) AS price, min(f.order_id::text) AS order_id INTO v_known
    FROM fills AS f
    WHERE f.user_id = p_order.user_id AND f.venue = request ->> 'venue'
        AND f.trade_id IN (request ->> 'trade_id', opening_trade_id(request ->> 'trade_id'));
    IF v_known.quantity IS NULL THEN
        RETURN false;
    END IF;
    IF (v_known.quantity, v_known.price, v_known.order_id) IS DISTINCT FROM
        ((request ->> 'quantity')::numeric, (request ->> 'price')::numeric, p_order.id::text) THEN
        PERFORM refuse_fill(request, 'trade_id', request ->> 'trade_id', 'one trade for ever');
    END IF;
    RETURN true;
END
$$;

-- The trade in one part or two; what was reserved for it is released.
CREATE OR REPLACE FUNCTION write_venue_fill(
    request jsonb, p_account accounts, p_order orders, p_route venue_routes, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
    v_trade record;
    v_sequence bigint;
BEGIN
    v_order.venue_order_id := coalesce(request ->> 'venue_order_id', v_order.venue_order_id);
    -- Rates of any age convert: a trade that was made cannot wait for a fresh one.
    SELECT * INTO v_trade FROM write_trade(request, p_account, v_order, terms_of_fill(p_order), p_at, NULL);
    v_order := v_trade.order_after;
    v_order.slippage := trim_scale(abs(v_order.average_price - p_route.reference_price));
    v_trade.account.margin_reserved := p_account.margin_reserved
        - release_margin(v_order, p_route, p_account.currency, p_at);
    v_sequence := finish_trade(
        request, v_trade.account, v_order, v_trade.entries, v_trade.facts, p_at
    );
    PERFORM end_exits_of_trade(request, p_account, v_trade.facts, p_at);
    RETURN jsonb_build_object(
        'outcome', 'booked', 'status', v_order.status, 'filled_quantity', v_order.filled_quantity,
        'sequence', v_sequence
    );
END
$$;

-- The instrument with its newest quote and the user's tier, whether or not the instrument may still be traded.
CREATE OR REPLACE FUNCTION terms_of_fill(p_order orders) RETURNS order_terms
LANGUAGE sql STABLE AS $$
    SELECT jsonb_populate_record(
        NULL::order_terms,
        (to_jsonb(i) - 'trading_state') || coalesce(to_jsonb(q), '{}')
        || jsonb_build_object('account_tier', p.account_tier)
    )
    FROM instruments AS i
    INNER JOIN profiles AS p ON p.id = p_order.user_id
    LEFT JOIN quotes AS q ON i.symbol = q.symbol
    WHERE i.symbol = p_order.symbol
$$;

-- Frees the margin of what is no longer in flight, in proportion, and settles the route of a filled order; how much.
CREATE OR REPLACE FUNCTION release_margin(
    p_order orders, p_route venue_routes, p_currency text, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql AS $$
DECLARE
    v_reserved numeric := round_money(
        p_route.margin_required * (p_order.quantity - p_order.filled_quantity) / p_order.quantity, p_currency
    );
BEGIN
    v_reserved := least(v_reserved, p_route.margin_reserved);
    UPDATE venue_routes SET
        margin_reserved = v_reserved,
        state = CASE p_order.status WHEN 'filled' THEN 'done' ELSE state END,
        updated_at = p_at
    WHERE user_id = p_order.user_id AND order_id = p_order.id;
    RETURN p_route.margin_reserved - v_reserved;
END
$$;

GRANT EXECUTE ON FUNCTION book_venue_fill(jsonb) TO function_router;
