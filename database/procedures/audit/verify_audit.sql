SET LOCAL ROLE trading_procedures;

-- Rows where a hash chain is broken, in order; none when every chain holds from its first row to its head.

CREATE OR REPLACE FUNCTION verify_audit()
RETURNS TABLE (chain text, version bigint, audit_id uuid, problem text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH rows AS (
        SELECT
            l.account_id, l.version, l.id, l.previous_hash, l.hash,
            lag(l.version, 1, 0::bigint) OVER chain AS version_before,
            lag(l.hash, 1, ''::bytea) OVER chain AS hash_before,
            audit_bytes_v1(
                l.user_id, l.account_id, l.version, l.order_id, l.action, l.status, l.details, l.reason,
                l.retry_attempt, l.pii_digest, utc_text(l.created_at)
            ) AS bytes,
            l.pii_digest,
            audit_pii_digest(p.salt, p.ip_address, p.user_agent, p.email) AS pii_found
        FROM order_audit_log AS l
        LEFT JOIN audit_pii AS p ON l.user_id = p.user_id AND l.id = p.audit_id
        WINDOW chain AS (PARTITION BY l.account_id ORDER BY l.version)
    ),
    broken AS (
        SELECT r.account_id, r.version, r.id, CASE
            WHEN r.version <> r.version_before + 1 THEN 'rows before it are missing'
            WHEN r.previous_hash <> r.hash_before THEN 'it does not continue the row before'
            WHEN r.hash <> sha256(r.previous_hash || r.bytes) THEN 'its content was changed'
            -- None is left after an erasure; none may be added.
            WHEN r.pii_found IS NOT NULL AND r.pii_found IS DISTINCT FROM r.pii_digest THEN 'its personal data was changed'
        END AS problem
        FROM rows AS r
    ),
    cut AS (
        SELECT a.id AS account_id, a.audit_version AS version, t.id, 'the tail of the chain was cut or changed' AS problem
        FROM accounts AS a
        LEFT JOIN LATERAL (
            SELECT l.id, l.version, l.hash FROM order_audit_log AS l
            WHERE l.user_id = a.user_id AND l.account_id = a.id
            ORDER BY l.version DESC LIMIT 1
        ) AS t ON true
        WHERE a.audit_version <> coalesce(t.version, 0) OR a.audit_head <> coalesce(t.hash, '')
    )
    SELECT b.account_id::text, b.version, b.id, b.problem FROM broken AS b WHERE b.problem IS NOT NULL
    UNION ALL
    SELECT c.account_id::text, c.version, c.id, c.problem FROM cut AS c
    UNION ALL
    SELECT 'platform', p.version, NULL, p.problem FROM verify_platform_audit() AS p
    ORDER BY 1, 2
$$;

CREATE OR REPLACE FUNCTION verify_platform_audit() RETURNS TABLE (version bigint, problem text)
LANGUAGE sql STABLE AS $$
    WITH rows AS (
        SELECT
            l.*,
            lag(l.version, 1, 0::bigint) OVER chain AS version_before,
            lag(l.hash, 1, ''::bytea) OVER chain AS hash_before
        FROM platform_audit_log AS l
        WINDOW chain AS (ORDER BY l.version)
    ),
    broken AS (
        SELECT r.version, CASE
            WHEN r.version <> r.version_before + 1 THEN 'rows before it are missing'
            WHEN r.previous_hash <> r.hash_before THEN 'it does not continue the row before'
            WHEN r.hash <> sha256(r.previous_hash || platform_audit_bytes_v1(
                r.version, r.actor, r.action, r.details, r.reason, r.created_at
            )) THEN 'its content was changed'
        END AS problem
        FROM rows AS r
    )
    SELECT b.version, b.problem FROM broken AS b WHERE b.problem IS NOT NULL
    UNION ALL
    SELECT h.audit_version, 'the tail of the chain was cut or changed'
    FROM platform_audit_head AS h
    LEFT JOIN LATERAL (
        SELECT l.version, l.hash FROM platform_audit_log AS l ORDER BY l.version DESC LIMIT 1
    ) AS t ON true
    WHERE h.audit_version <> coalesce(t.version, 0) OR h.audit_head <> coalesce(t.hash, '')
$$;

GRANT EXECUTE ON FUNCTION verify_audit() TO compliance, backup;
