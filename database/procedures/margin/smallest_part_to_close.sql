SET LOCAL ROLE trading_procedures;

-- The smallest part of p_quantity of a position, in steps of its lot, that brings an account of p_equity on
-- p_margin_used above p_stop_out_level and up to p_release_level when it is closed now, costs included. All of it where
-- no part does. Found by halving: what closing more costs is far less than the margin that it sets free. Of a hedge
-- that holds up to what is not covered; from there on margin rises or falls steadily, so that its two ends say which.
CREATE OR REPLACE FUNCTION smallest_part_to_close(
    p_account accounts, p_terms order_terms, p_position positions, p_quantity numeric, p_equity numeric,
    p_margin_used numeric, p_stop_out_level numeric, p_release_level numeric, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_marked numeric;
    -- In steps: too few, and enough.
    v_few bigint := ceil(p_terms.quantity_min / p_terms.quantity_step) - 1;
    v_whole bigint := floor(p_quantity / p_terms.quantity_step);
    v_enough bigint;
    v_middle bigint;
BEGIN
    SELECT v.unrealized_pnl INTO STRICT v_marked
    FROM valued_positions(p_account.user_id, p_account.id, p_at) AS v
    WHERE v.position_id = p_position.id;
    SELECT least(v_whole, floor(uncovered_quantity(
        p_position.side, s.long_quantity, s.short_quantity
    ) / p_terms.quantity_step)) INTO STRICT v_enough
    FROM symbol_sides(p_account.user_id, p_account.id) AS s
    WHERE s.symbol = p_position.symbol;
    IF v_enough <= v_few OR NOT part_restores(
        p_account, p_terms, p_position, v_enough * p_terms.quantity_step, v_marked, p_equity, p_margin_used,
        p_stop_out_level, p_release_level, p_at
    ) THEN
        IF v_whole <= greatest(v_few, v_enough) OR NOT part_restores(
            p_account, p_terms, p_position, v_whole * p_terms.quantity_step, v_marked, p_equity, p_margin_used,
            p_stop_out_level, p_release_level, p_at
        ) THEN
            RETURN p_quantity;
        END IF;
        v_few := greatest(v_few, v_enough);
        v_enough := v_whole;
    END IF;
    WHILE v_enough - v_few > 1 LOOP
        v_middle := (v_few + v_enough) / 2;
        IF part_restores(
            p_account, p_terms, p_position, v_middle * p_terms.quantity_step, v_marked, p_equity, p_margin_used,
            p_stop_out_level, p_release_level, p_at
        ) THEN
            v_enough := v_middle;
        ELSE
            v_few := v_middle;
        END IF;
    END LOOP;
    RETURN v_enough * p_terms.quantity_step;
END
$$;

-- Whether closing p_quantity of the position, whose whole is marked at p_marked, is enough.
CREATE OR REPLACE FUNCTION part_restores(
    p_account accounts, p_terms order_terms, p_position positions, p_quantity numeric, p_marked numeric,
    p_equity numeric, p_margin_used numeric, p_stop_out_level numeric, p_release_level numeric, p_at timestamptz
) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fill order_fill := stop_out_fill(p_account, p_terms, p_position, p_quantity, p_at);
    v_equity numeric := p_equity - p_marked * p_quantity / p_position.quantity
        + realized_pnl(p_account, p_terms, p_position, p_quantity, v_fill.price, p_at) - v_fill.commission;
    v_released numeric := p_position.margin_used - remaining_margin(
        p_position.margin_used, p_position.quantity, p_position.quantity - p_quantity, p_account.currency
    );
    v_margin numeric := p_margin_used - v_released - margin_credit_change(
        p_account, p_terms, CASE p_position.side WHEN 'long' THEN 'buy' ELSE 'sell' END, -p_quantity, -v_released
    );
    v_level numeric := v_equity * 100 / nullif(v_margin, 0);
BEGIN
    RETURN coalesce(v_level > p_stop_out_level AND v_level >= p_release_level, v_equity >= 0);
END
$$;
