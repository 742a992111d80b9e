SET LOCAL ROLE trading_procedures;

-- Why an order is denied. Each function returns NULL for a fine order, else {code, message, details}.

CREATE OR REPLACE FUNCTION refusal(
    p_code text, p_message text, p_field text, p_value text, p_constraint text, p_more jsonb DEFAULT '{}'
) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('code', p_code, 'message', p_message, 'details', jsonb_build_object(
        'field', p_field, 'value', p_value, 'constraint', p_constraint
    ) || p_more)
$$;

-- Who may trade what now. A client who may not open may still reduce.
CREATE OR REPLACE FUNCTION eligibility_refusal(
    p_account accounts, p_terms order_terms, p_reducing boolean, p_open boolean, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_states text [] := ARRAY[
        p_terms.platform_trading_state, p_terms.instrument_trading_state, p_account.trading_state
    ];
BEGIN
    IF NOT p_reducing AND p_terms.kyc_status <> 'verified' THEN
        RETURN refusal(
            'KYC_REQUIRED', 'Your identity is not verified yet. Finish the verification, then trade.',
            'kyc_status', p_terms.kyc_status, 'verified'
        );
    END IF;
    IF NOT p_reducing AND p_terms.account_status <> 'active' THEN
        RETURN refusal(
            'ACCOUNT_NOT_ACTIVE', format('Your account is %s. You may close positions; to trade again, contact support.',
                p_terms.account_status), 'account_status', p_terms.account_status, 'active'
        );
    END IF;
    IF NOT p_reducing AND v_states && ARRAY['halted', 'reducing'] THEN
        RETURN refusal(
            'TRADING_HALTED', format('New exposure in %s is halted at the moment. You may close positions.',
                p_terms.symbol), 'trading_state', array_to_string(v_states, '/'), 'active'
        );
    END IF;
    IF NOT p_open AND NOT p_terms.trade_always THEN
        RETURN refusal(
            'MARKET_CLOSED', format('The market of %s is closed. Send the order again when it opens.', p_terms.symbol),
            'symbol', p_terms.symbol, 'an open market',
            jsonb_build_object('opens_at', utc_text(next_open(p_terms.calendar, p_at)))
        );
    END IF;
    RETURN NULL;
END
$$;

-- The same of an order that waits, which may wait for its market to open too. While halted nothing new rests, also
-- nothing that only reduces.
CREATE OR REPLACE FUNCTION waiting_refusal(
    p_account accounts, p_terms order_terms, p_reducing boolean, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce(
        eligibility_refusal(p_account, p_terms, p_reducing, true, p_at),
        CASE WHEN is_halted(p_account, p_terms) THEN refusal(
            'TRADING_HALTED', format('No new order in %s may wait at the moment. You may close positions at the market.',
                p_terms.symbol), 'trading_state', 'halted', 'active or reducing'
        ) END
    );
END
$$;

CREATE OR REPLACE FUNCTION is_halted(p_account accounts, p_terms order_terms) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN 'halted' IN (p_terms.platform_trading_state, p_terms.instrument_trading_state, p_account.trading_state);
END
$$;

-- The lots of a position that an order on p_side takes from: 0 where it would add to it, and without one.
CREATE OR REPLACE FUNCTION held_against(p_position positions, p_side text) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE
        WHEN p_position.side = CASE p_side WHEN 'buy' THEN 'short' ELSE 'long' END THEN p_position.quantity
        ELSE 0
    END;
END
$$;

-- The lots of an order {quantity, reduce_only?} that are filled: one that may only reduce is cut to the p_held that it
-- takes from, whatever that is by now.
CREATE OR REPLACE FUNCTION quantity_to_fill(p_order jsonb, p_held numeric) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_quantity numeric := (p_order ->> 'quantity')::numeric;
BEGIN
    RETURN CASE
        WHEN p_held > 0 AND (p_order ->> 'reduce_only')::boolean THEN least(v_quantity, p_held) ELSE v_quantity
    END;
END
$$;

-- What cannot be done without p_held to take from: a cash account is never short, and what only reduces never opens.
-- Any other order turns a position that is too small for it round.
CREATE OR REPLACE FUNCTION position_refusal(
    p_account accounts, p_side text, p_quantity numeric, p_held numeric, p_reduce_only boolean
) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_quantity <= p_held OR NOT (p_reduce_only OR (p_account.kind = 'cash' AND p_side = 'sell')) THEN
        RETURN NULL;
    END IF;
    RETURN larger_refusal(p_side, p_quantity, p_held);
END
$$;

-- Of an order that may close what is held and no more.
CREATE OR REPLACE FUNCTION larger_refusal(p_side text, p_quantity numeric, p_held numeric) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_quantity <= p_held THEN
        RETURN NULL;
    END IF;
    RETURN refusal(
        'INSUFFICIENT_POSITION', CASE WHEN p_held > 0
            THEN format('You can %s at most %s here, which closes what you hold.', p_side, p_held)
            ELSE format('You hold nothing here that you could %s to close.', p_side) END,
        'quantity', p_quantity::text, 'at most ' || p_held, jsonb_build_object('held_quantity', p_held)
    );
END
$$;

-- What is short: free margin must not fall below zero after commission and with the new position marked at the other
-- side of the same quote, and with what orders in flight to a venue have reserved. What covers an opposite position
-- needs less by the credit that grows with it.
CREATE OR REPLACE FUNCTION margin_refusal(
    p_account accounts, p_fill order_fill, p_free_margin numeric, p_margin_used numeric, p_margin_level numeric
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_required numeric := p_fill.margin - p_fill.hedged_margin_credit + p_fill.commission - p_fill.unrealized_pnl;
    v_available numeric := p_free_margin - p_account.margin_reserved;
BEGIN
    -- Unrealized profit is not cash, so a cash account cannot spend it.
    IF p_account.kind = 'cash' THEN
        v_available := least(p_free_margin, p_account.balance - p_margin_used) - p_account.margin_reserved;
    END IF;
    IF v_required <= v_available THEN
        RETURN NULL;
    END IF;
    v_required := round_money(v_required, p_account.currency);
    v_available := round_money(v_available, p_account.currency);
    IF p_account.kind = 'cash' THEN
        RETURN refusal(
            -- The order's own cost, unless it is commission and spread that no longer fit.
            'INSUFFICIENT_FUNDS', format('Insufficient funds for %s order; available: %s', money_text(
                CASE WHEN p_fill.margin > v_available THEN p_fill.margin ELSE v_required END, p_account.currency
            ), money_text(v_available, p_account.currency)),
            'quantity', NULL, 'cost within the available balance', jsonb_build_object(
                'required_balance', v_required, 'available_balance', v_available
            )
        );
    END IF;
    RETURN refusal(
        'INSUFFICIENT_MARGIN', format('This order needs %s %s of free margin; you have %s. Reduce the quantity, close a '
            'position or deposit.', v_required, p_account.currency, v_available),
        'quantity', NULL, 'margin within the free margin', jsonb_build_object(
            'required', v_required::text, 'available', v_available::text,
            'margin_level', round(p_margin_level, 2)::text
        )
    );
END
$$;

-- $15,000 or $15,000.50
CREATE OR REPLACE FUNCTION money_text(p_amount numeric, p_currency text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_amount < 0 THEN '-' ELSE '' END
        || CASE p_currency WHEN 'USD' THEN '$' WHEN 'EUR' THEN '€' WHEN 'GBP' THEN '£' ELSE p_currency || ' ' END
        || to_char(abs(round(p_amount, 2)), CASE
            WHEN round(p_amount, 2) = trunc(p_amount) THEN 'FM999,999,999,999,999,990' ELSE 'FM999,999,999,999,999,990.00'
        END)
$$;
