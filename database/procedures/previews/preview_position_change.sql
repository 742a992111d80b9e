SET LOCAL ROLE trading_readers;

-- Where a change of a position's levels would leave them, and everything by which the money at them is worked out, read
-- at one moment; nothing is written.
-- request {position_id, levels, expected_version?}, as of change_position
-- -> {account {id, currency, kind, leverage}, position_id, symbol, version, position {side, quantity, entry_price,
--   margin_used}, entry_price, current_price: its mark at the newest quote, else null, before and after {stop_loss,
--   take_profit, trailing_distance}: prices as texts with the places of the tick, quoted_at, terms: a row of
--   order_terms, null of what is not traded now, quotes: as preview_facts}
-- Raises what change_position raises of a change, but for its key.
CREATE OR REPLACE FUNCTION preview_position_change(p_user_id uuid, request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_account accounts;
    v_change record;
    v_before positions;
    v_terms order_terms;
    v_tick numeric;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account := account_to_preview(
        p_user_id, account_of_position(p_user_id, (request ->> 'position_id')::uuid, 'id')
    );
    v_change := judge_change(
        request, v_account, position_to_preview(v_account, (request ->> 'position_id')::uuid), v_at
    );
    v_before := v_change.position_before;
    SELECT * INTO v_terms FROM order_terms AS t
    WHERE t.user_id = p_user_id AND t.account_id = v_account.id AND t.symbol = v_before.symbol;
    SELECT i.tick_size INTO STRICT v_tick FROM instruments AS i WHERE i.symbol = v_before.symbol;
    RETURN bare_closing_fact(v_account, v_before, v_terms, v_at) || jsonb_build_object(
        'account', previewed_account(v_account),
        'version', v_before.version,
        'entry_price', price_form(v_before.entry_price, v_tick),
        'current_price', price_form(mark_of(v_before.side, v_terms), v_tick),
        'quoted_at', utc_text(v_terms.quoted_at),
        'before', previewed_levels(v_before, v_tick),
        'after', previewed_levels(v_change.position_after, v_tick)
    ) || preview_rates(v_account, ARRAY[v_terms.base_currency, v_terms.quote_currency], v_at);
END
$$;

CREATE OR REPLACE FUNCTION previewed_levels(p_position positions, p_tick numeric) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'stop_loss', price_form(p_position.stop_loss, p_tick),
        'take_profit', price_form(p_position.take_profit, p_tick),
        'trailing_distance', price_form(p_position.trail_distance, p_tick)
    )
$$;

GRANT EXECUTE ON FUNCTION preview_position_change(uuid, jsonb) TO function_trader;

SET LOCAL ROLE trading_procedures;

-- What judges a change judges its preview. They read as whoever calls them: here the rows of app.user_id alone.
GRANT EXECUTE ON FUNCTION judge_change(jsonb, accounts, positions, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION refuse_position_version(positions, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_level_forms(jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION position_with_levels(positions, jsonb, order_terms, text, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_stop_loss_kept(positions, positions, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION refuse_limit(text, text, text, text, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION mark_of(text, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION checked_level(positions, text, text, order_terms, text, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION level_price(positions, text, numeric, order_terms, text, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION better_ticks(numeric, numeric, boolean) TO trading_readers;
GRANT EXECUTE ON FUNCTION at_present_trail(positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION marked_position(positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION marked_fact(positions) TO trading_readers;
GRANT EXECUTE ON FUNCTION audited_position(positions) TO trading_readers;
