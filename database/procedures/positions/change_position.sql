SET LOCAL ROLE trading_procedures;

-- Changes the levels at which an open position is to end, at its owner's wish; open to who may not trade, because it
-- protects and opens nothing.
-- request {version: 1, user_id, position_id, levels, expected_version?, idempotency_key, request_hash,
--   idempotency_key_days, request_id?, ip_address?, user_agent?, email?}
--   levels: what is named changes, in one form a level.
--     stop loss: stop_loss (price; null removes it), stop_loss_distance (price, from the entry price),
--       stop_loss_amount (loss there, account currency), breakeven (true: the entry price), trailing_distance (price,
--       from the mark; null lets the stop stand where it is)
--     take profit: take_profit (price; null removes it), take_profit_distance, take_profit_amount (profit there)
-- -> {replayed, answer: {outcome: 'changed', account_id, sequence, transact_time, position}}, position as
--   readable_position tells it
-- Raises TR001 no such position, TR003 key reused, TR004 no usable price, TR006 a level out of its bounds or on the
-- wrong side of the market, TR010 not open any more or, with `position`, not of the expected version, TR015 a stop loss
-- that the account's limits keep where it is; then nothing is kept.
CREATE OR REPLACE FUNCTION change_position(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user_id uuid := (request ->> 'user_id')::uuid;
    v_position_id uuid := (request ->> 'position_id')::uuid;
    v_begun record;
BEGIN
    PERFORM check_request_version(request);
    v_begun := lock_or_replay(request, account_of_position(v_user_id, v_position_id, 'id'));
    RETURN jsonb_build_object('replayed', v_begun.answer IS NOT NULL, 'answer', coalesce(
        v_begun.answer, change_levels(request, v_begun.account, v_position_id, clock_timestamp())
    ));
END
$$;

-- The change under its account's lock, at p_at: judged, written, booked.
CREATE OR REPLACE FUNCTION change_levels(
    request jsonb, p_account accounts, p_position_id uuid, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_before positions := position_to_close(p_account, p_position_id);
    v_after positions;
    v_change record;
BEGIN
    v_change := judge_change(request, p_account, v_before, p_at);
    v_before := v_change.position_before;
    v_after := v_change.position_after;
    UPDATE positions AS p SET
        stop_loss = v_after.stop_loss,
        take_profit = v_after.take_profit,
        trail_distance = v_after.trail_distance,
        trail_mark = v_after.trail_mark,
        version = p.version + 1,
        updated_at = p_at
    WHERE p.user_id = v_before.user_id AND p.id = v_before.id
    RETURNING p.* INTO STRICT v_after;
    -- One that goes on trailing is the feed's.
    IF request #>> '{levels,trailing_distance}' IS NOT NULL THEN
        PERFORM keep_position_trail(v_after);
    END IF;
    RETURN book_position_change(request, p_account, v_before, v_after, p_at);
END
$$;

-- The position with its stop where it is by now, and as the change would leave it; raises what refuses that.
CREATE OR REPLACE FUNCTION judge_change(
    request jsonb, p_account accounts, p_position positions, p_at timestamptz,
    OUT position_before positions, OUT position_after positions
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_levels CONSTANT jsonb := request -> 'levels';
    v_terms order_terms;
BEGIN
    position_before := at_present_trail(p_position);
    IF position_before.version <> (request ->> 'expected_version')::integer THEN
        PERFORM refuse_position_version(position_before, request ->> 'expected_version');
    END IF;
    PERFORM check_level_forms(v_levels);
    -- What only removes levels needs no price.
    IF jsonb_strip_nulls(v_levels) <> '{}' THEN
        SELECT * INTO v_terms FROM order_terms AS t
        WHERE t.user_id = p_account.user_id AND t.account_id = p_account.id AND t.symbol = p_position.symbol;
        IF quote_is_stale(v_terms.quoted_at, v_terms.received_at, v_terms.quote_age_ms_max, v_terms.calendar, p_at) THEN
            PERFORM refuse_stale_quote(p_position.symbol);
        END IF;
    END IF;
    position_after := position_with_levels(position_before, v_levels, v_terms, p_account.currency, p_at);
    PERFORM check_stop_loss_kept(position_before, position_after, v_terms);
END
$$;

-- A stop loss that the account's limits require stays, and none moves further away than they allow. Closer, and where
-- there was none, it always may. p_terms is all NULL where levels are only removed.
CREATE OR REPLACE FUNCTION check_stop_loss_kept(
    p_before positions, p_after positions, p_terms order_terms
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_limits effective_limits;
    v_mark numeric := mark_of(p_before.side, p_terms);
BEGIN
    IF p_before.stop_loss IS NULL OR p_after.stop_loss IS NOT DISTINCT FROM p_before.stop_loss THEN
        RETURN;
    END IF;
    SELECT * INTO v_limits FROM effective_limits AS l
    WHERE l.user_id = p_before.user_id AND l.account_id = p_before.account_id;
    IF v_limits.stop_loss_required AND p_after.stop_loss IS NULL THEN
        PERFORM refuse_limit('stop_loss_required', 'stop_loss', NULL, 'required',
            'Your positions need a stop loss. Move it or close the position.');
    ELSIF abs(v_mark - p_after.stop_loss) * 100 > v_limits.stop_loss_max_percent * v_mark
        AND (p_after.stop_loss < p_before.stop_loss) = (p_before.side = 'long') THEN
        PERFORM refuse_limit(
            'stop_loss_max_percent', 'stop_loss', p_after.stop_loss::text,
            format('at most %s percent from %s', v_limits.stop_loss_max_percent, v_mark),
            format('Your stop loss may be at most %s percent away from the price; move it less far away.',
                v_limits.stop_loss_max_percent)
        );
    END IF;
END
$$;

-- Refuses what is no order, so that nothing of it is kept.
CREATE OR REPLACE FUNCTION refuse_limit(
    p_limit text, p_field text, p_value text, p_constraint text, p_message text
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', p_message
    USING ERRCODE = 'TR015', DETAIL = jsonb_build_object(
        'field', p_field, 'value', p_value, 'constraint', p_constraint, 'limit', p_limit
    )::text;
END
$$;

CREATE OR REPLACE FUNCTION refuse_position_version(p_position positions, p_expected text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The position was changed since: it has version % now. Look at it, then send the change again.',
        p_position.version
    USING ERRCODE = 'TR010', DETAIL = jsonb_build_object(
        'field', 'version', 'value', p_expected, 'constraint', 'the version ' || p_position.version,
        'position', marked_position(p_position)
    )::text;
END
$$;

-- One form a level. A null that removes is one too, but for a trail that ends because another form takes its place.
CREATE OR REPLACE FUNCTION check_level_forms(p_levels jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_forms text [];
BEGIN
    IF coalesce(p_levels, '{}') = '{}' THEN
        PERFORM refuse_value('levels', NULL, 'at least one of stop loss, trailing distance, breakeven and take profit');
    END IF;
    FOR v_forms IN
        SELECT array_agg(f.form ORDER BY f.place)
        FROM (VALUES
            (1, 'stop_loss', 1), (1, 'stop_loss_distance', 2), (1, 'stop_loss_amount', 3), (1, 'breakeven', 4),
            (1, 'trailing_distance', 5), (2, 'take_profit', 1), (2, 'take_profit_distance', 2),
            (2, 'take_profit_amount', 3)
        ) AS f (level, form, place)
        WHERE p_levels ? f.form AND (f.form <> 'trailing_distance' OR p_levels ->> f.form IS NOT NULL)
        GROUP BY f.level
        HAVING count(*) > 1
    LOOP
        PERFORM refuse_value(v_forms[2], p_levels ->> v_forms[2], format('left out beside %s', v_forms[1]));
    END LOOP;
END
$$;

-- The position with its new levels, not written yet. A stop that is given in any other form ends a trail.
CREATE OR REPLACE FUNCTION position_with_levels(
    p_position positions, p_levels jsonb, p_terms order_terms, p_currency text, p_at timestamptz
) RETURNS positions
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_given record;
    v_price numeric;
BEGIN
    FOR v_given IN SELECT l.key AS form, l.value FROM jsonb_each_text(p_levels) AS l LOOP
        IF v_given.form LIKE 'take_profit%' THEN
            p_position.take_profit := checked_level(p_position, v_given.form, v_given.value, p_terms, p_currency, p_at);
            CONTINUE;
        END IF;
        v_price := checked_level(p_position, v_given.form, v_given.value, p_terms, p_currency, p_at);
        IF v_given.form <> 'trailing_distance' THEN
            p_position.stop_loss := v_price;
            p_position.trail_distance := NULL;
            p_position.trail_mark := NULL;
        ELSIF v_price IS NULL THEN
            p_position.trail_distance := NULL;
            p_position.trail_mark := NULL;
        ELSE
            p_position.stop_loss := v_price;
            p_position.trail_distance := v_given.value;
            p_position.trail_mark := mark_of(p_position.side, p_terms);
        END IF;
    END LOOP;
    RETURN p_position;
END
$$;

CREATE OR REPLACE FUNCTION mark_of(p_side text, p_terms order_terms) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_side WHEN 'long' THEN p_terms.bid ELSE p_terms.ask END
$$;

-- The price of a level that is given as p_form, NULL where it is removed; on the tick, and on its own side of the mark.
CREATE OR REPLACE FUNCTION checked_level(
    p_position positions, p_form text, p_value text, p_terms order_terms, p_currency text, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_value numeric;
    v_level numeric;
    v_mark numeric := mark_of(p_position.side, p_terms);
    v_below boolean := (p_form LIKE 'take_profit%') = (p_position.side = 'short');
    v_wanted text;
BEGIN
    IF p_value IS NULL THEN
        RETURN NULL;
    END IF;
    IF p_form <> 'breakeven' THEN
        v_value := p_value::numeric;
        -- NaN is greater than every number, so the bound keeps it out too.
        IF NOT v_value BETWEEN 0 AND 1e18 OR v_value = 0 THEN
            PERFORM refuse_value(p_form, p_value, 'above 0');
        END IF;
        IF p_form NOT LIKE '%amount' AND v_value % p_terms.tick_size <> 0 THEN
            PERFORM refuse_value(p_form, p_value, 'a positive multiple of ' || p_terms.tick_size);
        END IF;
    END IF;
    v_level := level_price(p_position, p_form, v_value, p_terms, p_currency, p_at);
    IF v_level <= 0 OR (CASE WHEN v_below THEN v_level >= v_mark ELSE v_level <= v_mark END) THEN
        v_wanted := format(
            CASE WHEN v_level <= 0 THEN 'above 0' WHEN v_below THEN 'below the %s %s' ELSE 'above the %s %s' END,
            CASE p_position.side WHEN 'long' THEN 'bid' ELSE 'ask' END, v_mark
        );
        PERFORM refuse_value(p_form, p_value, CASE
            WHEN p_form IN ('stop_loss', 'take_profit') THEN v_wanted
            ELSE format('such that its level, %s, lies %s', v_level, v_wanted)
        END);
    END IF;
    RETURN v_level;
END
$$;

-- The price that a form of a level means. What falls between two ticks is the one that is better for the position, so
-- that no stop loses more, and no take profit brings less, than was said.
CREATE OR REPLACE FUNCTION level_price(
    p_position positions, p_form text, p_value numeric, p_terms order_terms, p_currency text, p_at timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_profit boolean := p_form LIKE 'take_profit%';
    v_long boolean := p_position.side = 'long';
    -- From the entry price to the level: up for a long's profit and a short's loss.
    v_sign integer := CASE WHEN v_profit = v_long THEN 1 ELSE -1 END;
    v_rate numeric [];
    v_worth numeric;
BEGIN
    IF p_form IN ('stop_loss', 'take_profit') THEN
        RETURN round_to_tick(p_value, p_terms.tick_size);
    ELSIF p_form = 'trailing_distance' THEN
        RETURN mark_of(p_position.side, p_terms) + v_sign * p_value;
    ELSIF p_form LIKE '%amount' THEN
        v_rate := conversion_fraction(p_terms.quote_currency, p_currency, v_profit, p_at);
        -- What a move of one is worth, times the rate's divisor: nothing is divided but once, at the end.
        v_worth := p_position.quantity * p_terms.contract_size * v_rate[1];
        RETURN p_terms.tick_size * better_ticks(
            p_position.entry_price * v_worth + v_sign * p_value * v_rate[2], v_worth * p_terms.tick_size, v_long
        );
    END IF;
    RETURN p_terms.tick_size * better_ticks(
        p_position.entry_price + v_sign * coalesce(p_value, 0), p_terms.tick_size, v_long
    );
END
$$;

-- p_numerator / p_denominator, rounded up for a long and down for a short, exactly.
CREATE OR REPLACE FUNCTION better_ticks(p_numerator numeric, p_denominator numeric, p_long boolean) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT div(p_numerator, p_denominator) + CASE
        WHEN p_long AND p_numerator % p_denominator > 0 THEN 1
        WHEN NOT p_long AND p_numerator % p_denominator < 0 THEN -1
        ELSE 0
    END
$$;

-- Audit, account, event and kept answer of a position whose row has its new levels already.
CREATE OR REPLACE FUNCTION book_position_change(
    request jsonb, p_account accounts, p_before positions, p_after positions, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_sequence bigint := p_account.last_sequence + 1;
    v_head bytea;
BEGIN
    v_head := append_audit(p_account, NULL, ARRAY[ROW('POSITION_CHANGED', NULL, jsonb_build_object(
        'asked', request -> 'levels', 'before', jsonb_build_object(
            'stop_loss', p_before.stop_loss, 'take_profit', p_before.take_profit,
            'trail_distance', p_before.trail_distance, 'version', p_before.version
        ),
        'position', audited_position(p_after), 'idempotency_key', request -> 'idempotency_key',
        'request_id', request -> 'request_id'
    ), NULL, NULL)::audit_entry], p_at, request);
    UPDATE accounts SET
        last_sequence = v_sequence,
        audit_version = audit_version + 1,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(p_account, v_sequence, 'position.changed', jsonb_build_object(
        'positions', jsonb_build_array(marked_fact(p_after)), 'account', present_worth(p_account)
    ), request ->> 'request_id', p_at);
    RETURN keep_answer(
        p_account, request ->> 'idempotency_key', request ->> 'request_hash', jsonb_build_object(
            'outcome', 'changed', 'account_id', p_account.id, 'sequence', v_sequence,
            'transact_time', utc_text(p_at), 'position', marked_position(p_after)
        ), (request ->> 'idempotency_key_days')::integer, p_at
    );
END
$$;

GRANT EXECUTE ON FUNCTION change_position(jsonb) TO function_trader;
