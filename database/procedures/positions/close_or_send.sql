SET LOCAL ROLE trading_procedures;

-- Closing a position where it is held: here, or at a venue, by an order that goes there like any
-- other and is booked by what the venue reports. Until it has reported, the position is open and its rest is not sent
-- again.

-- The closing order of p_position, priced as p_fill: booked here, or accepted for its venue. The answer of
-- book_filled_order, or of book_accepted_order (outcome pending_new, with its venue).
CREATE OR REPLACE FUNCTION close_or_send(
    request jsonb, p_account accounts, p_terms order_terms, p_fill order_fill, p_position positions, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_venue CONSTANT text := holding_venue(p_account, p_terms, p_position);
BEGIN
    IF v_venue = 'internal' THEN
        RETURN book_filled_order(request, p_account, p_terms, p_fill, p_position, NULL, p_at);
    END IF;
    RETURN book_accepted_order(request, p_account, p_terms, v_venue, p_fill, 0, NULL, p_position.id, p_at);
END
$$;

-- Where a position is held: where the order that opened it was filled, whatever venue its instrument has by now. Orders
-- of a netting account mix in one position; it goes by its instrument, as they do.
CREATE OR REPLACE FUNCTION holding_venue(p_account accounts, p_terms order_terms, p_position positions) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_account.position_mode = 'netting' THEN
        RETURN p_terms.venue;
    END IF;
    RETURN coalesce((
        SELECT r.venue FROM venue_routes AS r
        WHERE r.user_id = p_position.user_id AND r.order_id = p_position.order_id
    ), 'internal');
END
$$;

-- The lots of a position that orders in flight to a venue close: of a netting account all against it, of a hedging one
-- those that name it.
CREATE OR REPLACE FUNCTION lots_in_flight(p_account accounts, p_position positions) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT least(p_position.quantity, coalesce(sum(o.quantity - o.filled_quantity), 0))
        FROM venue_routes AS r
        INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
        WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done'
            AND o.symbol = p_position.symbol AND o.side = CASE p_position.side WHEN 'long' THEN 'sell' ELSE 'buy' END
            AND (p_account.position_mode = 'netting' OR r.closes_position_id = p_position.id)
    );
END
$$;

-- How much of a position the platform may close now: what no order in flight closes; nothing for a minute after its
-- venue has refused a closing order or ended it early, so that nobody is asked with every price.
CREATE OR REPLACE FUNCTION lots_to_close(p_account accounts, p_position positions, p_at timestamptz) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (
        SELECT FROM venue_routes AS r
        INNER JOIN orders AS o ON r.user_id = o.user_id AND r.order_id = o.id
        WHERE r.user_id = p_account.user_id AND r.closes_position_id = p_position.id AND r.state = 'done'
            AND o.status <> 'filled' AND r.updated_at > p_at - interval '1 minute'
    ) THEN
        RETURN 0;
    END IF;
    RETURN p_position.quantity - lots_in_flight(p_account, p_position);
END
$$;

-- The margin that is set free when all that is in flight has closed what it is sent to close.
CREATE OR REPLACE FUNCTION margin_in_flight(p_account accounts) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM venue_routes AS r
        WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id AND r.state <> 'done'
    ) THEN
        RETURN 0;
    END IF;
    RETURN (
        SELECT coalesce(sum(p.margin_used - remaining_margin(
            p.margin_used, p.quantity, p.quantity - lots_in_flight(p_account, p), p_account.currency
        )), 0)
        FROM positions AS p
        WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
    );
END
$$;
