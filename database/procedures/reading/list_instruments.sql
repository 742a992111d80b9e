SET LOCAL ROLE trading_readers;

-- The instruments that may be traded: the API's allow-list of symbols with the bounds that it checks early.
CREATE OR REPLACE FUNCTION list_instruments() RETURNS SETOF instruments
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT * FROM instruments WHERE is_active
$$;

GRANT EXECUTE ON FUNCTION list_instruments() TO function_trader;
