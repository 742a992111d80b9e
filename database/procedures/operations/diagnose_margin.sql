SET LOCAL ROLE trading_procedures;

-- Why orders of a user are refused for margin: what is owned, held, used and free, how each figure comes about, and
-- what the last refused order would need now. Reads only. Figures are marked at the newest quotes, whatever their age;
-- `quotes` says which of them are too old to trade on.

-- {at, profile, accounts: [diagnosed_account]}; NULL for an address that nobody has.
CREATE OR REPLACE FUNCTION diagnose_margin(p_email text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_at timestamptz := clock_timestamp();
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'at', utc_text(v_at),
            'profile', jsonb_build_object(
                'user_id', p.id, 'email', p.email, 'kyc_status', p.kyc_status, 'account_status', p.account_status,
                'account_tier', p.account_tier
            ),
            'accounts', (
                SELECT coalesce(jsonb_agg(diagnosed_account(a, p, v_at) ORDER BY a.id), '[]')
                FROM accounts AS a
                WHERE a.user_id = p.id
            )
        )
        FROM profiles AS p
        WHERE p.email = lower(p_email)
    );
END
$$;

CREATE OR REPLACE FUNCTION diagnosed_account(p_account accounts, p_profile profiles, p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_worth record;
    v_quotes jsonb := diagnosed_quotes(p_account, p_at);
BEGIN
    SELECT * INTO v_worth FROM account_valuation(p_account.user_id, p_account.id);
    RETURN jsonb_build_object(
        'account', jsonb_build_object(
            'id', p_account.id, 'currency', p_account.currency, 'kind', p_account.kind,
            'leverage', number_form(p_account.leverage), 'position_mode', p_account.position_mode,
            'trading_state', p_account.trading_state
        ),
        'limits', (
            SELECT to_jsonb(l) - ARRAY[
                'user_id', 'account_id', 'email', 'kyc_status', 'account_status', 'account_tier'
            ] || jsonb_build_object(
                'margin_call_threshold', r.margin_call_threshold,
                'margin_call_release_percent', r.margin_call_release_percent, 'stop_out_level', r.stop_out_level
            )
            FROM risk_settings AS r
            INNER JOIN effective_limits AS l USING (user_id, account_id)
            WHERE r.user_id = p_account.user_id AND r.account_id = p_account.id
        ),
        'positions', diagnosed_positions(p_account),
        'margin', jsonb_build_object(
            'balance', money_form(v_worth.balance, p_account.currency),
            'unrealized_pnl', money_form(v_worth.unrealized_pnl, p_account.currency),
            'equity', money_form(v_worth.equity, p_account.currency),
            'margin_used', money_form(v_worth.margin_used, p_account.currency),
            'hedged_margin_credit', money_form(v_worth.hedged_margin_credit, p_account.currency),
            'margin_used_by_audit', money_form(audited_margin(p_account), p_account.currency),
            'free_margin', money_form(v_worth.free_margin, p_account.currency),
            'margin_level', round(v_worth.margin_level, 2)::text
        ),
        'working_orders', diagnosed_orders(
            p_account, ARRAY['pending_new', 'new', 'triggered', 'partially_filled'], 50
        ),
        'denials', diagnosed_orders(p_account, ARRAY['denied', 'rejected'], 5),
        'quotes', v_quotes,
        'should_have_margin', v_worth.equity > v_worth.margin_used,
        'verdict', diagnosed_states(p_account, p_profile, v_quotes) || to_jsonb(ARRAY[
            margin_verdict(p_account, v_worth.equity, v_worth.margin_used),
            need_verdict(p_account, v_worth.free_margin, v_worth.margin_used, p_at)
        ])
    );
END
$$;

-- Open positions with mark, P&L and how the margin came about; `margin_at_present_terms` differs where leverage or
-- conversion have changed since, because a margin is fixed at the opening fill.
CREATE OR REPLACE FUNCTION diagnosed_positions(p_account accounts) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'position_id', v.position_id,
        'symbol', v.symbol,
        'side', v.side,
        'quantity', number_form(v.quantity),
        'entry_price', price_form(v.entry_price, i.tick_size),
        'mark', price_form(v.current_price, i.tick_size),
        'pnl', number_form(v.pnl),
        'quote_currency', v.quote_currency,
        'unrealized_pnl', money_form(v.unrealized_pnl, p_account.currency),
        'margin_used', money_form(v.margin_used, p_account.currency),
        'margin_calculation', margin_calculation(p_account, i, v.quantity, v.entry_price, t.leverage_cap),
        'margin_at_present_terms', order_margin(p_account, t, v.quantity, v.entry_price, NULL)::text
    ) ORDER BY v.position_id), '[]')
    FROM valued_positions(p_account.user_id, p_account.id) AS v
    INNER JOIN instruments AS i USING (symbol)
    LEFT JOIN order_terms AS t
        ON t.user_id = p_account.user_id AND t.account_id = p_account.id AND v.symbol = t.symbol
$$;

-- order_margin in words: lots x contract size (x price) / leverage, and what is converted.
CREATE OR REPLACE FUNCTION margin_calculation(
    p_account accounts, p_instrument instruments, p_quantity numeric, p_price numeric, p_cap numeric
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_by_base boolean := p_instrument.asset_class = 'forex' AND p_instrument.quote_currency <> p_account.currency;
    v_currency text := CASE WHEN v_by_base THEN p_instrument.base_currency ELSE p_instrument.quote_currency END;
BEGIN
    RETURN format('%s lots x %s', number_form(p_quantity), number_form(p_instrument.contract_size))
        || CASE WHEN v_by_base THEN '' ELSE ' x ' || price_form(p_price, p_instrument.tick_size) END
        || format(' %s / leverage %s', v_currency, number_form(
            CASE p_account.kind WHEN 'cash' THEN 1 ELSE least(p_account.leverage, p_instrument.leverage, p_cap) END
        ))
        || CASE v_currency WHEN p_account.currency THEN '' ELSE ', converted to ' || p_account.currency END;
END
$$;

-- The margin of the open positions as the audit last told it, to set against their rows.
CREATE OR REPLACE FUNCTION audited_margin(p_account accounts) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(t.margin_used), 0)
    FROM (
        SELECT DISTINCT ON (l.details -> 'position' ->> 'position_id')
            (l.details -> 'position' ->> 'margin_used')::numeric AS margin_used
        FROM order_audit_log AS l
        WHERE l.user_id = p_account.user_id AND l.account_id = p_account.id AND l.details ? 'position'
        ORDER BY l.details -> 'position' ->> 'position_id', l.version DESC
    ) AS t
$$;

-- The newest orders in those states.
CREATE OR REPLACE FUNCTION diagnosed_orders(p_account accounts, p_statuses text[], p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'order_id', o.id, 'symbol', o.symbol, 'order_type', o.order_type, 'side', o.side,
        'quantity', number_form(o.quantity), 'leaves_quantity', number_form(o.leaves_quantity),
        'limit_price', number_form(o.limit_price), 'stop_price', number_form(o.stop_price), 'status', o.status,
        'failure_code', o.failure_code, 'failure_reason', o.failure_reason, 'created_at', utc_text(o.created_at)
    ) ORDER BY o.id DESC), '[]')
    FROM (
        SELECT * FROM orders AS l
        WHERE l.user_id = p_account.user_id AND l.account_id = p_account.id AND l.status = ANY (p_statuses)
        ORDER BY l.id DESC
        LIMIT p_limit
    ) AS o
$$;

-- The quotes of what is held, working or was just refused, and those that convert their currencies, with their age.
-- `stale`: not even good for a valuation.
CREATE OR REPLACE FUNCTION diagnosed_quotes(p_account accounts, p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    WITH concerned AS (
        SELECT p.symbol FROM positions AS p
        WHERE p.user_id = p_account.user_id AND p.account_id = p_account.id AND p.status = 'open'
        UNION
        SELECT o ->> 'symbol'
        FROM jsonb_array_elements(
            diagnosed_orders(p_account, ARRAY['pending_new', 'new', 'triggered', 'partially_filled'], 50)
            || diagnosed_orders(p_account, ARRAY['denied', 'rejected'], 5)
        ) AS o
    ),
    currencies AS (
        SELECT i.quote_currency AS currency FROM concerned INNER JOIN instruments AS i USING (symbol)
        UNION
        SELECT i.base_currency FROM concerned INNER JOIN instruments AS i USING (symbol)
        WHERE i.asset_class = 'forex'
    ),
    pairs AS (
        SELECT c.currency, i.symbol, i.symbol IN (c.currency || p_account.currency, p_account.currency || c.currency)
            AS direct
        FROM currencies AS c
        INNER JOIN instruments AS i ON i.symbol IN (
            c.currency || p_account.currency, p_account.currency || c.currency, c.currency || 'USD',
            'USD' || c.currency, p_account.currency || 'USD', 'USD' || p_account.currency
        )
        WHERE c.currency <> p_account.currency
    ),
    needed AS (
        SELECT c.symbol FROM concerned AS c
        UNION
        SELECT p.symbol FROM pairs AS p
        WHERE p.direct OR NOT EXISTS (SELECT FROM pairs AS d WHERE d.currency = p.currency AND d.direct)
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'symbol', i.symbol,
        'bid', price_form(q.bid, i.tick_size),
        'ask', price_form(q.ask, i.tick_size),
        'source', q.source,
        'age_ms', round(extract(EPOCH FROM p_at - least(q.quoted_at, q.received_at)) * 1000),
        'age_ms_max', i.quote_age_ms_max,
        'market_open', market_is_open(i.calendar, p_at),
        'stale', quote_is_stale(q.quoted_at, q.received_at, i.quote_age_ms_max, i.calendar, p_at)
    ) ORDER BY i.symbol), '[]')
    FROM needed AS n
    INNER JOIN instruments AS i USING (symbol)
    LEFT JOIN quotes AS q USING (symbol)
$$;

-- What refuses orders beside margin, one line each.
CREATE OR REPLACE FUNCTION diagnosed_states(p_account accounts, p_profile profiles, p_quotes jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(s.line), '[]')
    FROM (
        SELECT format('KYC is %s: every order that opens is refused (KYC_REQUIRED), whatever its margin.',
            p_profile.kyc_status) AS line
        WHERE p_profile.kyc_status <> 'verified'
        UNION ALL
        SELECT format('The account is %s: every order that opens is refused (ACCOUNT_NOT_ACTIVE), whatever its margin.',
            p_profile.account_status)
        WHERE p_profile.account_status <> 'active'
        UNION ALL
        SELECT format('Trading is %s on the %s: every order that opens is refused (TRADING_HALTED).', t.state, t.what)
        FROM (
            SELECT p_account.trading_state AS state, 'account' AS what
            UNION ALL
            SELECT s.trading_state, 'platform' FROM platform_settings AS s
        ) AS t
        WHERE t.state <> 'active'
        UNION ALL
        SELECT format('The quote of %s is %s: orders that need it are refused (MARKET_DATA_UNAVAILABLE).',
            q ->> 'symbol', CASE
                WHEN q ->> 'age_ms' IS NULL THEN 'missing'
                ELSE format('%s ms old, more than %s', q ->> 'age_ms', q ->> 'age_ms_max')
            END)
        FROM jsonb_array_elements(p_quotes) AS q
        WHERE (q ->> 'stale')::boolean
    ) AS s
$$;

CREATE OR REPLACE FUNCTION margin_verdict(p_account accounts, p_equity numeric, p_margin_used numeric) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_equity IS NULL THEN 'The equity is not known, because a quote is missing.'
        WHEN p_equity > p_margin_used THEN format('There should be margin: equity %s less margin used %s leaves %s %s free.',
            money_form(p_equity, p_account.currency), money_form(p_margin_used, p_account.currency),
            money_form(p_equity - p_margin_used, p_account.currency), p_account.currency)
        ELSE format('There is no margin: equity %s does not exceed margin used %s %s. Close a position or deposit.',
            money_form(p_equity, p_account.currency), money_form(p_margin_used, p_account.currency), p_account.currency)
    END
$$;

-- What the last order that was refused for want of money would need now, against what is free.
CREATE OR REPLACE FUNCTION need_verdict(
    p_account accounts, p_free_margin numeric, p_margin_used numeric, p_at timestamptz
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_order orders;
    v_need numeric;
    v_free numeric := round_money(CASE p_account.kind
        -- What a cash account's holdings have gained is not cash.
        WHEN 'cash' THEN least(p_free_margin, p_account.balance - p_margin_used) ELSE p_free_margin
    END, p_account.currency);
    v_asked text;
BEGIN
    SELECT * INTO v_order FROM orders AS o
    WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id AND o.status IN ('denied', 'rejected')
        AND o.failure_code IN ('INSUFFICIENT_MARGIN', 'INSUFFICIENT_FUNDS')
    ORDER BY o.id DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 'No order was refused for want of margin or funds.';
    END IF;
    v_asked := format('The last order refused for it (%s %s %s, %s)', v_order.side, number_form(v_order.quantity),
        v_order.symbol, utc_text(v_order.created_at));
    v_need := needed_margin(p_account, v_order.symbol, v_order.side, v_order.quantity, p_at);
    IF v_need IS NULL OR v_free IS NULL THEN
        RETURN v_asked || ' cannot be valued now, because a quote is missing.';
    END IF;
    RETURN v_asked || format(' would need about %s %s of margin, commission and spread now; %s is free: %s',
        v_need, p_account.currency, v_free, CASE
            WHEN v_need <= v_free THEN 'it fits.'
            ELSE format('%s is missing. About %s lots fit.', v_need - v_free, number_form(
                greatest(0, trunc(v_order.quantity * v_free / v_need, 2))
            ))
        END);
END
$$;

-- What margin_refusal asks for, at the newest quotes; about, because the random part of slippage is the order's own.
CREATE OR REPLACE FUNCTION needed_margin(
    p_account accounts, p_symbol text, p_side text, p_quantity numeric, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_terms order_terms;
    v_fill order_fill;
    v_margin numeric;
BEGIN
    SELECT * INTO v_terms FROM order_terms AS t
    WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = p_symbol;
    IF v_terms.bid IS NULL THEN
        RETURN NULL;
    END IF;
    v_fill := price_order(
        v_terms, p_side, p_quantity, p_account.id::text, NOT market_is_open(v_terms.calendar, p_at)
    );
    v_margin := order_margin(p_account, v_terms, p_quantity, v_fill.price, NULL);
    RETURN round_money(
        v_margin - margin_credit_change(p_account, v_terms, p_side, p_quantity, v_margin)
        - convert_amount(-order_commission(v_terms, p_quantity), v_terms.quote_currency, p_account.currency)
        - opening_pnl(p_account, v_terms, p_side, p_quantity, v_fill.price, NULL), p_account.currency
    );
END
$$;

GRANT EXECUTE ON FUNCTION diagnose_margin(text) TO compliance;
