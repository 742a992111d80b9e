SET LOCAL ROLE trading_procedures;

-- Orders that show only a part of themselves: each quote fills at most the part that is shown then.

-- The part that is shown after what is filled already: display_quantity, moved by up to display_variance either way by
-- a draw of its own, on the step of quantities; at least a step, at most what is left. All of it, where nothing is
-- hidden.
CREATE OR REPLACE FUNCTION displayed_slice(p_order orders, p_terms order_terms) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_draw numeric;
    v_slice numeric;
BEGIN
    IF p_order.display_quantity IS NULL THEN
        RETURN workable_quantity(p_order);
    END IF;
    v_draw := slippage_draw(p_order.id || ':' || trim_scale(p_order.filled_quantity));
    v_slice := p_order.display_quantity * (1 + coalesce(p_order.display_variance, 0) * (2 * v_draw - 1));
    RETURN least(
        p_order.leaves_quantity,
        greatest(p_terms.quantity_step, round_to_tick(v_slice, p_terms.quantity_step))
    );
END
$$;

-- How many lots of the order one quote fills: without a limit all of them, else as far as its depth and what is shown
-- go.
CREATE OR REPLACE FUNCTION offered_quantity(p_order orders, p_terms order_terms) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_order.limit_price IS NULL THEN
        RETURN workable_quantity(p_order);
    END IF;
    RETURN least(workable_quantity(p_order), venue_depth(p_terms), displayed_slice(p_order, p_terms));
END
$$;

-- Behind the API's own check: only a limit order that rests hides a part of itself.
CREATE OR REPLACE FUNCTION check_display(request jsonb, p_terms order_terms) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_shown numeric := (request ->> 'display_quantity')::numeric;
    v_variance numeric := (request ->> 'display_variance')::numeric;
BEGIN
    IF request ->> 'order_type' <> 'limit' OR request ->> 'time_in_force' NOT IN ('day', 'gtc', 'gtd') THEN
        PERFORM check_price_given(request, 'display_quantity', false);
    END IF;
    IF v_shown IS NULL THEN
        PERFORM check_price_given(request, 'display_variance', false);
    END IF;
    IF NOT v_shown BETWEEN p_terms.quantity_min AND (request ->> 'quantity')::numeric
        OR v_shown % p_terms.quantity_step <> 0 THEN
        PERFORM refuse_value('display_quantity', v_shown::text, format(
            '%s to the quantity in steps of %s', p_terms.quantity_min, p_terms.quantity_step
        ));
    END IF;
    IF NOT v_variance BETWEEN 0 AND 1 THEN
        PERFORM refuse_value('display_variance', v_variance::text, 'from 0 to 1');
    END IF;
END
$$;
