SET LOCAL ROLE trading_readers;

-- Everything by which the closing of positions would be judged and priced, read at one moment; nothing is written.
-- Each answers
--   {account {id, currency, kind, leverage}, worth {balance, unrealized_pnl, margin_used}: at quotes of any age,
--   matched: how many positions were meant, closings [{position_id, symbol, position {side, quantity, entry_price,
--   margin_used}, quantity: what would be closed, price: the one that is agreed on, else null, terms: a row of
--   order_terms, else null, market_open, fresh: the symbol's quote may be traded on, refusal: why it would be denied
--   before it is priced, else null}], sides {symbol: as sides_of tells them}, quotes, stale_position,
--   position_currencies: as preview_facts}

-- As close_position. request {position_id, quantity?, max_slippage?}
-- Raises TR001 no such position, TR006 a value out of its bounds, TR010 not open any more.
CREATE OR REPLACE FUNCTION preview_close(p_user_id uuid, request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_account accounts;
    v_position positions;
    v_fact jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account := account_to_preview(
        p_user_id, account_of_position(p_user_id, (request ->> 'position_id')::uuid, 'id')
    );
    v_position := position_to_preview(v_account, (request ->> 'position_id')::uuid);
    v_fact := closing_fact(request, v_account, v_position, v_at);
    RETURN closing_facts(v_account, jsonb_build_array(v_fact), 1, v_at);
END
$$;

-- As close_by: the position that is named first. request {position_id, opposite_position_id, quantity?}
-- Raises TR001 no such position, TR004 not traded now, TR006 not a pair that can be closed, a quantity out of its
-- bounds, TR010 one is not open any more.
CREATE OR REPLACE FUNCTION preview_close_by(p_user_id uuid, request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_pair record;
    v_account accounts;
    v_position positions;
    v_opposite positions;
    v_agreed jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account := account_to_preview(p_user_id, account_of_pair(request || jsonb_build_object('user_id', p_user_id)));
    v_position := position_to_preview(v_account, (request ->> 'position_id')::uuid);
    v_opposite := position_to_preview(v_account, (request ->> 'opposite_position_id')::uuid);
    v_pair := judge_pair(request, v_account, v_position, v_opposite);
    v_agreed := jsonb_build_object('quantity', v_pair.quantity, 'price', v_opposite.entry_price, 'fresh', true);
    RETURN closing_facts(v_account, jsonb_build_array(
        bare_closing_fact(v_account, v_position, v_pair.terms, v_at) || v_agreed,
        bare_closing_fact(v_account, v_opposite, v_pair.terms, v_at) || v_agreed
    ), 2, v_at);
END
$$;

-- As plan_closes and close_planned. request {account_id?, symbol?, side?, which, positions_max}
-- Raises TR001 no such account, TR002 no such symbol, TR006 several accounts and none named, an unknown word.
CREATE OR REPLACE FUNCTION preview_close_all(p_user_id uuid, request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_account accounts;
    v_meant uuid [];
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account := account_to_preview(p_user_id, resolve_account(p_user_id, (request ->> 'account_id')::uuid));
    v_meant := ARRAY(SELECT m.position_id FROM positions_meant(request, v_account) AS m ORDER BY m.position_id);
    RETURN closing_facts(v_account, (
        SELECT coalesce(jsonb_agg(closing_fact('{}', v_account, p, v_at) ORDER BY p.id), '[]')
        FROM positions AS p
        WHERE p.user_id = p_user_id AND p.id = ANY (v_meant[:(request ->> 'positions_max')::integer])
    ), cardinality(v_meant), v_at);
END
$$;

CREATE OR REPLACE FUNCTION account_to_preview(p_user_id uuid, p_account_id uuid) RETURNS accounts
LANGUAGE sql STABLE AS $$
    SELECT * FROM accounts AS a WHERE a.user_id = p_user_id AND a.id = p_account_id
$$;

-- As position_to_close, without its lock.
CREATE OR REPLACE FUNCTION position_to_preview(p_account accounts, p_position_id uuid) RETURNS positions
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_position positions;
BEGIN
    SELECT * INTO STRICT v_position FROM positions AS p
    WHERE p.user_id = p_account.user_id AND p.id = p_position_id;
    PERFORM check_position_open(v_position);
    PERFORM check_none_in_flight(p_account, v_position);
    RETURN v_position;
END
$$;

-- What a closing order of the position would be judged by, in the order in which execute_closing_order does.
CREATE OR REPLACE FUNCTION closing_fact(
    request jsonb, p_account accounts, p_position positions, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_order CONSTANT jsonb := closing_order(request, p_position);
    v_quantity CONSTANT numeric := (v_order ->> 'quantity')::numeric;
    v_terms order_terms;
    v_fact jsonb;
BEGIN
    SELECT * INTO v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = p_position.symbol;
    v_fact := bare_closing_fact(p_account, p_position, v_terms, p_at) || jsonb_build_object(
        'quantity', v_quantity, 'refusal', in_flight_refusal(p_account, p_position)
    );
    IF v_terms.symbol IS NULL OR v_fact ->> 'refusal' IS NOT NULL THEN
        -- Where its instrument is not traded now, nobody quotes it.
        RETURN v_fact;
    END IF;
    PERFORM check_closing_values(v_order, v_terms, p_position);
    RETURN v_fact || jsonb_build_object('refusal', coalesce(
        eligibility_refusal(p_account, v_terms, true, (v_fact ->> 'market_open')::boolean, p_at),
        larger_refusal(v_order ->> 'side', v_quantity, p_position.quantity)
    ));
END
$$;

CREATE OR REPLACE FUNCTION bare_closing_fact(
    p_account accounts, p_position positions, p_terms order_terms, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'position_id', p_position.id,
        'symbol', p_position.symbol,
        'position', jsonb_build_object(
            'side', p_position.side, 'quantity', p_position.quantity, 'entry_price', p_position.entry_price,
            'margin_used', p_position.margin_used
        ),
        'price', NULL,
        'terms', CASE WHEN p_terms.symbol IS NOT NULL THEN to_jsonb(p_terms) - 'email' END,
        'market_open', p_terms.symbol IS NOT NULL AND market_is_open(p_terms.calendar, p_at),
        'fresh', p_terms.symbol IS NOT NULL AND quote_is_fresh(p_terms, p_at),
        'refusal', NULL
    );
END
$$;

CREATE OR REPLACE FUNCTION closing_facts(
    p_account accounts, p_closings jsonb, p_matched integer, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_worth record;
BEGIN
    SELECT * INTO v_worth FROM account_valuation(p_account.user_id, p_account.id);
    RETURN jsonb_build_object(
        'account', previewed_account(p_account),
        'worth', jsonb_build_object(
            'balance', v_worth.balance, 'unrealized_pnl', v_worth.unrealized_pnl, 'margin_used', v_worth.margin_used
        ),
        'matched', p_matched,
        'closings', p_closings,
        'sides', (
            SELECT coalesce(jsonb_object_agg(c.symbol, sides_of(p_account, c.symbol)), '{}')
            FROM (SELECT DISTINCT e ->> 'symbol' AS symbol FROM jsonb_array_elements(p_closings) AS e) AS c
        )
    ) || preview_rates(p_account, NULL, p_at);
END
$$;

GRANT EXECUTE ON FUNCTION preview_close(uuid, jsonb) TO function_trader;
GRANT EXECUTE ON FUNCTION preview_close_by(uuid, jsonb) TO function_trader;
GRANT EXECUTE ON FUNCTION preview_close_all(uuid, jsonb) TO function_trader;

SET LOCAL ROLE trading_procedures;

-- What judges a close judges its preview. They read as whoever calls them: here the rows of app.user_id alone.
GRANT EXECUTE ON FUNCTION account_of_position(uuid, uuid, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION account_of_pair(jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION judge_pair(jsonb, accounts, positions, positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_pair_quantity(numeric, order_terms, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_position_open(positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_none_in_flight(accounts, positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION in_flight_refusal(accounts, positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION lots_in_flight(accounts, positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION closing_order(jsonb, positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_closing_values(jsonb, order_terms, positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION positions_meant(jsonb, accounts) TO trading_readers;
GRANT EXECUTE ON FUNCTION valued_positions(uuid, uuid, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION refuse_stale_quote(text) TO trading_readers;
