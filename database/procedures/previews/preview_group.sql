SET LOCAL ROLE trading_readers;

-- How orders that depend on each other would be judged if they were placed now, up to the first that is refused;
-- nothing is written.
-- request as of place_linked_orders, without its key
-- -> {account {id, currency, kind, leverage}, worth {balance, unrealized_pnl, margin_used}: at quotes of any age,
--   orders [{symbol, order_type, side, quantity, contingency, price: its own, as text, null of a market order}], fills
--   [{commission, margin: null of what only reduces}]: of those that work from the start and wait for a price, judged:
--   how many were looked at, refusal: of the last of these, else null, parent: what preview_facts tells of one at the
--   market that nothing refuses so far, else null, opens: the lots that the first would add, terms: a row of
--   order_terms, of the first, quotes, stale_position, position_currencies: as preview_facts}
-- Raises what place_linked_orders raises before it fills a parent at the market.
CREATE OR REPLACE FUNCTION preview_group(p_user_id uuid, request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at CONSTANT timestamptz := clock_timestamp();
    v_legs CONSTANT jsonb [] := group_legs(request);
    v_account accounts;
    v_judged record;
    v_terms order_terms;
    v_parent jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account := account_to_preview(p_user_id, resolve_account(p_user_id, (request ->> 'account_id')::uuid));
    PERFORM check_group(request, v_legs);
    v_judged := judge_group(request, v_account, v_legs, v_at);
    v_terms := (v_judged.terms)[1];
    IF v_judged.refusal IS NULL AND v_legs[1] ->> 'order_type' = 'market' THEN
        v_parent := preview_facts(p_user_id, v_account.id, v_legs[1]);
    ELSIF v_judged.refusal IS NULL THEN
        -- With the places of its tick, as its row has it.
        PERFORM check_exits_of_entry(
            request, v_terms, round_to_tick(resting_price(v_legs[1], v_terms), v_terms.tick_size)
        );
    END IF;
    RETURN jsonb_build_object(
        'account', previewed_account(v_account),
        'worth', (
            SELECT jsonb_build_object(
                'balance', w.balance, 'unrealized_pnl', w.unrealized_pnl, 'margin_used', w.margin_used
            )
            FROM account_valuation(v_account.user_id, v_account.id) AS w
        ),
        'orders', group_previewed(request, v_legs),
        'fills', coalesce(to_jsonb(v_judged.fills), '[]'),
        'judged', cardinality(v_judged.terms),
        'refusal', v_judged.refusal,
        'parent', v_parent,
        'opens', greatest(0, (v_legs[1] ->> 'quantity')::numeric - held_against(
            netting_position(v_account, v_terms.symbol), v_legs[1] ->> 'side'
        )),
        'terms', to_jsonb(v_terms) - 'email'
    ) || preview_rates(v_account, ARRAY[v_terms.base_currency, v_terms.quote_currency], v_at);
END
$$;

CREATE OR REPLACE FUNCTION group_previewed(request jsonb, p_legs jsonb[]) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object(
        'symbol', x.leg -> 'symbol', 'order_type', x.leg -> 'order_type', 'side', x.leg -> 'side',
        'quantity', x.leg -> 'quantity', 'contingency', contingency_of(request ->> 'kind', x.place = 1),
        'price', price_form(coalesce(x.leg ->> 'limit_price', x.leg ->> 'stop_price')::numeric, i.tick_size)
    ) ORDER BY x.place)
    FROM unnest(p_legs) WITH ORDINALITY AS x (leg, place)
    LEFT JOIN instruments AS i ON i.symbol = x.leg ->> 'symbol'
$$;

GRANT EXECUTE ON FUNCTION preview_group(uuid, jsonb) TO function_trader;

SET LOCAL ROLE trading_procedures;

-- What judges a group judges its preview. They read as whoever calls them: here the rows of app.user_id alone.
GRANT EXECUTE ON FUNCTION group_legs(jsonb) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_group(jsonb, jsonb[]) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_exits_of_entry(jsonb, order_terms, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION group_size_refusal(accounts, order_terms, jsonb[]) TO trading_readers;
GRANT EXECUTE ON FUNCTION contingency_of(text, boolean) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_resting_form(jsonb, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_resting_prices(jsonb, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_display(jsonb, order_terms) TO trading_readers;
GRANT EXECUTE ON FUNCTION check_exit_prices(jsonb, order_terms, numeric, boolean) TO trading_readers;
GRANT EXECUTE ON FUNCTION judge_exposure(
    accounts, order_terms, limit_case, order_fill, positions, timestamptz
) TO trading_readers;
GRANT EXECUTE ON FUNCTION charged_commission(accounts, order_terms, numeric, timestamptz) TO trading_readers;
GRANT EXECUTE ON FUNCTION margin_refusal(accounts, order_fill, numeric, numeric, numeric) TO trading_readers;
GRANT EXECUTE ON FUNCTION money_text(numeric, text) TO trading_readers;
GRANT EXECUTE ON FUNCTION realized_pnl(
    accounts, order_terms, positions, numeric, numeric, timestamptz
) TO trading_readers;
