SET LOCAL ROLE trading_procedures;

-- The books of the venues that are simulated here (paper, mock), kept where a Lambda's end does not reach them, and the
-- market that they trade at. A record is what a venue decided about a client id, once.

-- request {version: 1, venue, client_order_id, record}; the first record of a client id stands for ever.
-- -> {record, created}
CREATE OR REPLACE FUNCTION keep_venue_record(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_created boolean;
BEGIN
    PERFORM check_request_version(request);
    INSERT INTO venue_records (venue, client_order_id, record)
    VALUES (request ->> 'venue', request ->> 'client_order_id', request -> 'record')
    ON CONFLICT (venue, client_order_id) DO NOTHING;
    v_created := FOUND;
    -- A statement of its own: it sees the row that the racer has committed meanwhile.
    RETURN (
        SELECT jsonb_build_object('record', r.record, 'created', v_created)
        FROM venue_records AS r
        WHERE r.venue = request ->> 'venue' AND r.client_order_id = request ->> 'client_order_id'
    );
END
$$;

-- The record of a client id, NULL where the venue does not know it. request {version: 1, venue, client_order_id}
CREATE OR REPLACE FUNCTION find_venue_record(request jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.record FROM venue_records AS r
    WHERE r.venue = request ->> 'venue' AND r.client_order_id = request ->> 'client_order_id'
$$;

-- A page of a venue's records in the order of their client ids. request {version: 1, venue, after?, limit}
-- -> [{client_order_id, record}]
CREATE OR REPLACE FUNCTION list_venue_records(request jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_agg(
        jsonb_build_object('client_order_id', p.client_order_id, 'record', p.record) ORDER BY p.client_order_id
    ), '[]')
    FROM (
        SELECT r.client_order_id, r.record FROM venue_records AS r
        WHERE r.venue = request ->> 'venue' AND r.client_order_id > coalesce(request ->> 'after', '')
        ORDER BY r.client_order_id
        LIMIT (request ->> 'limit')::integer
    ) AS p
$$;

-- What a simulated venue trades a symbol at now: {instrument, bid, ask, volatility, after_hours}; NULL without a quote
-- that is fresh.
CREATE OR REPLACE FUNCTION get_venue_market(p_symbol text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'instrument', to_jsonb(i), 'bid', q.bid, 'ask', q.ask, 'volatility', q.volatility,
        'after_hours', NOT market_is_open(i.calendar, clock_timestamp())
    )
    FROM instruments AS i
    INNER JOIN quotes AS q ON i.symbol = q.symbol
    WHERE i.symbol = p_symbol
        AND least(q.quoted_at, q.received_at) >= clock_timestamp() - i.quote_age_ms_max * interval '1 millisecond'
        AND NOT quote_is_ahead(q.quoted_at, q.received_at, clock_timestamp())
$$;

GRANT EXECUTE ON FUNCTION keep_venue_record(jsonb) TO function_router;
GRANT EXECUTE ON FUNCTION find_venue_record(jsonb) TO function_router;
GRANT EXECUTE ON FUNCTION list_venue_records(jsonb) TO function_router;
GRANT EXECUTE ON FUNCTION get_venue_market(text) TO function_router;
