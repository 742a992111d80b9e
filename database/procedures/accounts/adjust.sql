SET LOCAL ROLE trading_procedures;

-- A correction of an account's balance, up or down, by an operator who says why. It may leave the balance or the free
-- margin below zero: what was booked wrongly has to be taken back all the same.
-- request and answer as of deposit; amount of any sign but not zero, reason required. Raises what deposit does.
CREATE OR REPLACE FUNCTION adjust(request jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT move_money(request, 'adjustment')
$$;

GRANT EXECUTE ON FUNCTION adjust(jsonb) TO function_operator;
