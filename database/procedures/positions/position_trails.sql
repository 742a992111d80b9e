SET LOCAL ROLE trading_procedures;

-- The trailing stop of a position: its owner sets and ends it (change_position), the feed moves it (trailing_levels);
-- the row of the position keeps where it stood when it was set.

-- The position with mark and stop as the feed has moved them by now; any other as it is. The feed moves them on
-- meanwhile: what it found locked would not count for it.
CREATE OR REPLACE FUNCTION at_present_trail(p_position positions) RETURNS positions
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_trail trailing_levels;
BEGIN
    IF p_position.trail_distance IS NOT NULL THEN
        v_trail := trailing_level(p_position.user_id, p_position.id);
        p_position.stop_loss := coalesce(v_trail.level, p_position.stop_loss);
        p_position.trail_mark := coalesce(v_trail.mark, p_position.trail_mark);
    END IF;
    RETURN p_position;
END
$$;

-- Has the feed move the stop from where the position's row has it. The end of a trail takes its row away by itself.
CREATE OR REPLACE FUNCTION keep_position_trail(p_position positions) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO trailing_levels (user_id, subject_id, account_id, kind, symbol, watch, trail_amount, mark, level)
    SELECT
        p_position.user_id, p_position.id, p_position.account_id, 'position', p_position.symbol,
        CASE p_position.side WHEN 'long' THEN 'bid_falls' ELSE 'ask_rises' END, p_position.trail_distance,
        p_position.trail_mark, p_position.stop_loss
    WHERE p_position.trail_distance IS NOT NULL
    ON CONFLICT (user_id, subject_id) DO UPDATE SET
        trail_amount = excluded.trail_amount, mark = excluded.mark, level = excluded.level
$$;

-- What judges an order judges its preview.
GRANT EXECUTE ON FUNCTION at_present_trail(positions) TO trading_readers;
