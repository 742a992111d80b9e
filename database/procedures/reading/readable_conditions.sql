SET LOCAL ROLE trading_readers;

-- The conditions of an order as its owner reads them; NULL of one without.
CREATE OR REPLACE FUNCTION readable_conditions(p_conditions jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(c.condition || jsonb_build_object(
        'level', price_form((c.condition ->> 'level')::numeric, i.tick_size)
    ) ORDER BY c.place)
    FROM jsonb_array_elements(p_conditions) WITH ORDINALITY AS c (condition, place)
    INNER JOIN instruments AS i ON i.symbol = c.condition ->> 'symbol'
$$;

-- As of readable_order: who may not replace an order is shown it as it is.
GRANT EXECUTE ON FUNCTION readable_conditions(jsonb) TO trading_procedures;
