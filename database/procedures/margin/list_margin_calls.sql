SET LOCAL ROLE trading_procedures;

-- Who is, or was, below a margin level: episodes of all accounts, as risk officers see them.

-- request {version: 1, state?: 'open' or 'left', before?: episode_id, limit}
-- -> {margin_calls: [{episode_id, account_id, trader_id, state, level, action, threshold, entered_at, entered_level,
--   changed_at, left_at, left_level, equity, margin_level}]}, the newest first. Levels are percent, in text. equity
-- (account currency) and margin_level are of now, NULL for one that is left, and where a quote is missing.
CREATE OR REPLACE FUNCTION list_margin_calls(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_page margin_call_episodes [];
    v_open uuid [];
BEGIN
    PERFORM check_request_version(request);
    v_page := ARRAY(
        SELECT e FROM margin_call_episodes AS e
        WHERE (request ->> 'before' IS NULL OR e.id < (request ->> 'before')::uuid)
            AND (request ->> 'state' IS NULL OR (request ->> 'state' = 'open') = (e.left_at IS NULL))
        ORDER BY e.id DESC
        LIMIT (request ->> 'limit')::integer
    );
    v_open := ARRAY(SELECT e.account_id FROM unnest(v_page) AS e WHERE e.left_at IS NULL);
    RETURN jsonb_build_object('margin_calls', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'episode_id', e.id, 'account_id', e.account_id, 'trader_id', e.user_id,
            'state', CASE WHEN e.left_at IS NULL THEN 'open' ELSE 'left' END,
            'level', e.level_name, 'action', e.level_action, 'threshold', trim_scale(e.threshold)::text,
            'entered_at', utc_text(e.entered_at), 'entered_level', round(e.entered_level, 2)::text,
            'changed_at', utc_text(e.changed_at), 'left_at', utc_text(e.left_at),
            'left_level', round(e.left_level, 2)::text,
            'equity', round_money(l.equity, a.currency)::text, 'margin_level', round(l.margin_level, 2)::text
        ) ORDER BY e.id DESC), '[]')
        FROM unnest(v_page) AS e
        INNER JOIN accounts AS a ON e.user_id = a.user_id AND e.account_id = a.id
        LEFT JOIN margin_levels(v_open, clock_timestamp()) AS l ON e.account_id = l.account_id AND e.left_at IS NULL
    ));
END
$$;

GRANT EXECUTE ON FUNCTION list_margin_calls(jsonb) TO function_risk_officer;
