"""The append-only audit: one hash chain an account, one for the platform, personal data beside it."""

from alembic import op

from database.migrations.policies import secure

revision = "0004"
down_revision = "0003"

APPEND_ONLY = ("order_audit_log", "platform_audit_log", "ledger_entries", "fills")


def upgrade() -> None:
    op.execute("""
    CREATE TABLE order_audit_log (
        user_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        account_id uuid NOT NULL,
        version positive_count NOT NULL,
        order_id uuid,
        action label NOT NULL,
        status text,
        details jsonb NOT NULL,
        reason text,
        retry_attempt integer,
        pii_digest bytea,
        previous_hash bytea NOT NULL,
        hash bytea NOT NULL,
        hash_version smallint NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (user_id, id),
        UNIQUE (user_id, account_id, version),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
    );
    CREATE INDEX order_audit_log_of_order ON order_audit_log (user_id, order_id);

    -- Personal data enters the chain only as a salted digest, so that a row here can be erased and the chain stands.
    CREATE TABLE audit_pii (
        user_id uuid NOT NULL,
        audit_id uuid NOT NULL,
        salt bytea NOT NULL,
        ip_address inet,
        user_agent text,
        email text,
        PRIMARY KEY (user_id, audit_id)
    );

    -- What concerns no account. Its head stands beside it, as an account's stands on the account.
    CREATE TABLE platform_audit_log (
        version bigint PRIMARY KEY CHECK (version > 0),
        actor text NOT NULL,
        action text NOT NULL CHECK (length(action) BETWEEN 1 AND 50),
        details jsonb NOT NULL,
        reason text,
        previous_hash bytea NOT NULL,
        hash bytea NOT NULL,
        hash_version smallint NOT NULL,
        created_at timestamptz NOT NULL
    );
    CREATE TABLE platform_audit_head (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        audit_version bigint NOT NULL DEFAULT 0,
        audit_head bytea NOT NULL DEFAULT '\\x'
    );
    INSERT INTO platform_audit_head DEFAULT VALUES;

    -- What happened, before it has its place in a chain. `status` is the order's state after it.
    CREATE TYPE audit_entry AS (action text, status text, details jsonb, reason text, retry_attempt integer);

    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'Rows of % are never changed or removed.', TG_TABLE_NAME USING ERRCODE = 'TR007';
    END
    $$;
    """)
    op.execute(secure("order_audit_log", by_user=True, procedures="SELECT, INSERT"))
    op.execute(secure("audit_pii", by_user=True, procedures="SELECT, INSERT, DELETE", compliance=False))
    op.execute(secure("platform_audit_log", by_user=False, procedures="SELECT, INSERT"))
    op.execute(secure("platform_audit_head", by_user=False, procedures="SELECT, UPDATE"))
    for table in APPEND_ONLY:
        # ENABLE ALWAYS: session_replication_role does not switch it off.
        op.execute(f"""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION refuse_change();
        CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only;
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only_whole;
        """)


def downgrade() -> None:
    op.execute("DROP TABLE platform_audit_head, platform_audit_log, audit_pii, order_audit_log")
    for table in ("ledger_entries", "fills"):
        op.execute(f"DROP TRIGGER append_only ON {table}; DROP TRIGGER append_only_whole ON {table};")
    op.execute("DROP FUNCTION refuse_change(); DROP TYPE audit_entry;")
