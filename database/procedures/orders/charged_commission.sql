SET LOCAL ROLE trading_procedures;

-- The commission of a fill in account currency, rounded once; converted as what it is, an amount that goes out.
CREATE OR REPLACE FUNCTION charged_commission(
    p_account accounts, p_terms order_terms, p_quantity numeric, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN -round_money(
        convert_amount(-order_commission(p_terms, p_quantity), p_terms.quote_currency, p_account.currency, p_at),
        p_account.currency
    );
END
$$;
