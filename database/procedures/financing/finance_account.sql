SET LOCAL ROLE trading_procedures;

-- Financing of one account: what the rolls have left to charge it, in the order in which they came, with ledger, audit
-- and event in one transaction under the account's lock. Safe to repeat, and at once from two places: who comes second
-- finds nothing due, and the ledger takes one entry a position and roll date.
-- request {version: 1, user_id, account_id, entries_max, request_id?}
-- -> {booked: n, more: boolean, unconverted: [currency pair], sequence}
-- more: entries_max were booked and others are due. unconverted: was left for want of a rate into the account's
-- currency at the roll. sequence: of the event, NULL where nothing was booked.
CREATE OR REPLACE FUNCTION finance_account(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_entries_max integer := (request ->> 'entries_max')::integer;
    v_account accounts;
    v_at timestamptz;
    v_charges jsonb;
    v_unconverted jsonb;
    v_due integer;
BEGIN
    PERFORM check_request_version(request);
    IF v_entries_max IS NULL OR v_entries_max < 1 THEN
        PERFORM refuse_value('entries_max', request ->> 'entries_max', 'at least 1');
    END IF;
    v_account := lock_account((request ->> 'user_id')::uuid, (request ->> 'account_id')::uuid);
    v_at := clock_timestamp();
    SELECT
        coalesce(jsonb_agg(c.charge ORDER BY c.place) FILTER (WHERE c.place <= v_entries_max), '[]'),
        coalesce(jsonb_agg(DISTINCT c.pair) FILTER (WHERE c.place IS NULL), '[]'), count(c.place)
    INTO v_charges, v_unconverted, v_due
    FROM financing_charges(v_account) AS c;

    IF v_charges <> '[]' THEN
        PERFORM book_financing(request, v_account, v_charges, v_at);
    END IF;
    RETURN jsonb_build_object(
        'booked', jsonb_array_length(v_charges), 'more', v_due > v_entries_max, 'unconverted', v_unconverted,
        'sequence', CASE WHEN v_charges <> '[]' THEN v_account.last_sequence + 1 END
    );
END
$$;

-- What is due and can be charged, as the audit tells it, `place` by place; what cannot be converted has no place.
CREATE OR REPLACE FUNCTION financing_charges(p_account accounts)
RETURNS TABLE (place bigint, pair text, charge jsonb)
LANGUAGE sql STABLE AS $$
    WITH due AS (
        SELECT
            d.*, i.contract_size, i.tick_size, i.quote_currency, r.days, r.basis, r.markup,
            CASE d.side WHEN 'long' THEN r.bid ELSE r.ask END AS price,
            CASE d.side WHEN 'long' THEN r.long_rate ELSE r.short_rate END AS rate
        FROM due_financing(ARRAY[p_account.user_id], ARRAY[p_account.id]) AS d
        INNER JOIN instrument_rolls AS r ON d.symbol = r.symbol AND d.roll_date = r.roll_date
        INNER JOIN instruments AS i ON d.symbol = i.symbol
        WHERE r.basis IS NOT NULL
    ),
    converted AS (
        SELECT d.*, fraction_before(d.quote_currency, p_account.currency, d.rate > d.markup, d.rolled_at) AS fraction
        FROM due AS d
    ),
    charged AS (
        SELECT c.*, financing_amount(
            c.quantity * c.contract_size, c.price, c.tick_size, c.rate, c.markup, c.days, c.basis, c.fraction,
            p_account.currency
        ) AS amount
        FROM converted AS c
    ),
    placed AS (
        SELECT
            c.*,
            CASE WHEN c.fraction IS NOT NULL THEN row_number() OVER account END AS place,
            p_account.balance + sum(c.amount) OVER account AS balance_after
        FROM charged AS c
        WINDOW account AS (
            PARTITION BY c.fraction IS NULL ORDER BY c.rolled_at, c.position_id, c.roll_date ROWS UNBOUNDED PRECEDING
        )
    )
    SELECT p.place, p.quote_currency || p_account.currency, jsonb_build_object(
        'position_id', p.position_id, 'symbol', p.symbol, 'side', p.side, 'roll_date', p.roll_date,
        'quantity', p.quantity, 'contract_size', p.contract_size, 'tick_size', p.tick_size, 'price', p.price,
        'rate', p.rate, 'markup', p.markup, 'basis', p.basis, 'days', p.days, 'conversion', to_jsonb(p.fraction),
        'amount', p.amount, 'balance_after', p.balance_after
    )
    FROM placed AS p
$$;

CREATE OR REPLACE FUNCTION book_financing(
    request jsonb, p_account accounts, p_charges jsonb, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_charges integer := jsonb_array_length(p_charges);
    v_head bytea;
BEGIN
    INSERT INTO ledger_entries (
        user_id, id, account_id, entry_number, entry_type, amount, balance_after, currency, position_id, roll_date,
        reason, created_at
    )
    SELECT
        p_account.user_id, uuidv7(), p_account.id, p_account.ledger_version + c.place, 'financing',
        (c.charge ->> 'amount')::numeric, (c.charge ->> 'balance_after')::numeric, p_account.currency,
        (c.charge ->> 'position_id')::uuid, (c.charge ->> 'roll_date')::date, financing_reason(c.charge), p_at
    FROM jsonb_array_elements(p_charges) WITH ORDINALITY AS c (charge, place)
    ORDER BY c.place;
    v_head := append_audit(p_account, NULL, ARRAY(
        SELECT ROW('FINANCED', NULL, c.charge, financing_reason(c.charge), NULL)::audit_entry
        FROM jsonb_array_elements(p_charges) WITH ORDINALITY AS c (charge, place)
        ORDER BY c.place
    ), p_at);
    UPDATE accounts SET
        balance = (p_charges -> -1 ->> 'balance_after')::numeric,
        ledger_version = ledger_version + v_charges,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + v_charges,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'account.financing', financing_facts(p_account, p_charges),
        request ->> 'request_id', p_at
    );
END
$$;

-- The day and what it counts for, as the owner reads it in the ledger.
CREATE OR REPLACE FUNCTION financing_reason(p_charge jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT format(
        'Financing of %s, %s %s', p_charge ->> 'roll_date', p_charge ->> 'days',
        CASE p_charge ->> 'days' WHEN '1' THEN 'day' ELSE 'days' END
    )
$$;

-- Each charge, the positions that are still open with what they were charged by it and have been in all, and the
-- account after it.
CREATE OR REPLACE FUNCTION financing_facts(p_account accounts, p_charges jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'financing', (
            SELECT jsonb_agg(jsonb_build_object(
                'position_id', c.charge -> 'position_id', 'roll_date', c.charge -> 'roll_date',
                'amount', c.charge -> 'amount'
            ) ORDER BY c.place)
            FROM jsonb_array_elements(p_charges) WITH ORDINALITY AS c (charge, place)
        ),
        'positions', (
            SELECT coalesce(jsonb_agg(marked_fact(p) || jsonb_build_object(
                'financing', position_financing(p.user_id, p.id), 'financing_charged', s.amount
            ) ORDER BY p.id), '[]')
            FROM (
                SELECT (c.charge ->> 'position_id')::uuid AS id, sum((c.charge ->> 'amount')::numeric) AS amount
                FROM jsonb_array_elements(p_charges) AS c (charge)
                GROUP BY (c.charge ->> 'position_id')::uuid
            ) AS s
            INNER JOIN positions AS p ON p.user_id = p_account.user_id AND s.id = p.id
            WHERE p.status = 'open'
        ),
        'account', present_worth(p_account)
    )
$$;

GRANT EXECUTE ON FUNCTION finance_account(jsonb) TO function_end_of_day;
