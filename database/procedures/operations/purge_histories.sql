SET LOCAL ROLE trading_procedures;

-- Removes what histories have kept for long enough (platform_settings), at most `limit` rows of each.
--   roll_quotes: but of each symbol the one that stands for the oldest roll that is not charged yet, and all behind it.
--   price_outages: those that are over.
-- instrument_rolls are the books of financing and stay; equity_snapshots are thinned where they are taken.
-- request {version: 1, limit} -> {roll_quotes, price_outages}: how many rows went
CREATE OR REPLACE FUNCTION purge_histories(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_limit CONSTANT bigint := (request ->> 'limit')::bigint;
    v_at CONSTANT timestamptz := clock_timestamp();
    v_settings platform_settings;
    v_roll_quotes bigint;
    v_outages bigint;
BEGIN
    PERFORM check_request_version(request);
    SELECT * INTO STRICT v_settings FROM platform_settings;
    v_roll_quotes := purge_roll_quotes(least(
        v_at - v_settings.roll_quotes_days * interval '1 day',
        (SELECT min(r.rolled_at) FROM instrument_rolls AS r WHERE r.finished_at IS NULL)
    ), v_limit);
    DELETE FROM price_outages AS p
    USING (
        SELECT o.id FROM price_outages AS o
        WHERE o.left_at < v_at - v_settings.price_outages_days * interval '1 day'
        LIMIT v_limit
    ) AS old
    WHERE p.id = old.id;
    GET DIAGNOSTICS v_outages = ROW_COUNT;
    RETURN jsonb_build_object('roll_quotes', v_roll_quotes, 'price_outages', v_outages);
END
$$;

-- Of each symbol the quotes before the last one at or before p_until, so that quote_before tells the same of p_until
-- and whatever comes after it; how many.
CREATE OR REPLACE FUNCTION purge_roll_quotes(p_until timestamptz, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_purged bigint;
BEGIN
    DELETE FROM roll_quotes AS k
    USING (
        SELECT q.symbol, q.quoted_at
        FROM roll_quotes AS q
        WHERE q.quoted_at < p_until AND EXISTS (
            SELECT FROM roll_quotes AS n
            WHERE n.symbol = q.symbol AND n.quoted_at > q.quoted_at AND n.quoted_at <= p_until
        )
        LIMIT p_limit
    ) AS old
    WHERE k.symbol = old.symbol AND k.quoted_at = old.quoted_at;
    GET DIAGNOSTICS v_purged = ROW_COUNT;
    RETURN v_purged;
END
$$;

GRANT EXECUTE ON FUNCTION purge_histories(jsonb) TO function_end_of_day;
