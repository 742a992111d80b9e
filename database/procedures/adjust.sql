-- A correction of an account's balance, up or down, by an operator who says why. It may leave the balance or the free
-- margin below zero: what was booked wrongly has to be taken back all the same.
-- request and answer as of deposit; amount of any sign but not zero, reason required. Raises what deposit does.
CREATE OR REPLACE FUNCTION adjust(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_opened record;
    v_amount numeric;
BEGIN
    SELECT * INTO v_opened FROM open_operator_request(request, 'adjustment');
    IF v_opened.answer IS NOT NULL THEN
        RETURN v_opened.answer || '{"replayed": true}';
    END IF;
    PERFORM check_reason(request, true);
    v_amount := requested_amount(request, (v_opened.account).currency, true);
    RETURN '{"replayed": false}' || book_money(
        request, v_opened.account, v_opened.request_hash, 'adjustment', v_amount, clock_timestamp()
    );
END
$$;

ALTER FUNCTION adjust(jsonb) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION adjust(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION adjust(jsonb) TO function_operator;
