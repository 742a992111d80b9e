"""The watch over security: what happened at the edge, rules that judge it, findings, and steps that can be undone.

Addresses and user agents stand in security_pii alone, so that they can be erased: no other table here holds them.
"""

from alembic import op

from database.migrations.policies import secure
from database.migrations.roles import create_role, limit_role

revision = "0026"
down_revision = "0025"

SEVERITIES = "('low', 'medium', 'high', 'critical')"
RESPONSES = "('ip_block', 'account_suspension')"
# Login role -> what one statement of it may take, in milliseconds.
LOGINS = {
    "function_security": {"statement_timeout": 20000, "lock_timeout": 4000},
    "function_incidents": {"statement_timeout": 5000, "lock_timeout": 4000},
}


def upgrade() -> None:
    for role, limits in LOGINS.items():
        op.execute(create_role(role, "LOGIN"))
        op.execute(limit_role(role, limits))
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    _events()
    _rules_and_findings()
    _interventions()


def downgrade() -> None:
    op.execute("""
    DROP TABLE never_blocked, edge_guard, security_findings, interventions, security_rules, security_settings,
        security_counters, security_pii, security_events;
    """)
    for role in LOGINS:
        op.execute(f"REVOKE ALL ON SCHEMA public FROM {role}")


def _events() -> None:
    op.execute(f"""
    -- `occurrences` alike ones in ten seconds are one row. A batch that is written again finds its rows there.
    CREATE TABLE security_events (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        event_type text NOT NULL CHECK (event_type IN (
            'authentication_failure', 'rate_limit_exceeded', 'suspicious_activity', 'privilege_escalation',
            'data_access'
        )),
        severity text NOT NULL CHECK (severity IN {SEVERITIES}),
        reason label NOT NULL,
        user_id uuid,
        details jsonb NOT NULL DEFAULT '{{}}',
        occurrences positive_count NOT NULL,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        batch_id uuid NOT NULL,
        batch_place integer NOT NULL,
        UNIQUE (batch_id, batch_place)
    );
    CREATE INDEX security_events_occurred ON security_events (occurred_at);

    -- Personal data of an event, a finding or an intervention, under its id. The salt makes the digest that the audit
    -- of an intervention holds in place of an address.
    CREATE TABLE security_pii (
        row_id uuid PRIMARY KEY,
        user_id uuid,
        ip_address inet,
        user_agent text CHECK (length(user_agent) <= 200),
        salt bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX security_pii_of_user ON security_pii (user_id);
    CREATE INDEX security_pii_of_address ON security_pii (ip_address);
    CREATE INDEX security_pii_created ON security_pii (created_at);

    -- What the edge counts while Redis is gone, until the next run of the watch makes events of it.
    CREATE UNLOGGED TABLE security_counters (
        key text PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
        occurrences positive_count NOT NULL,
        user_agent text
    ) WITH (fillfactor = 50);

    -- How long what is kept, and how much one run takes on.
    CREATE TABLE security_settings (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        event_days integer NOT NULL DEFAULT 365 CHECK (event_days BETWEEN 1 AND 3650),
        pii_days integer NOT NULL DEFAULT 30 CHECK (pii_days BETWEEN 1 AND 365),
        findings_per_run_max integer NOT NULL DEFAULT 500 CHECK (findings_per_run_max BETWEEN 1 AND 10000),
        counters_max integer NOT NULL DEFAULT 2000 CHECK (counters_max BETWEEN 1 AND 100000)
    );
    INSERT INTO security_settings DEFAULT VALUES;
    """)
    op.execute(secure("security_events", by_user=True, procedures="SELECT, INSERT, DELETE"))
    op.execute(secure("security_pii", by_user=True, procedures="SELECT, INSERT, DELETE", compliance=False))
    op.execute(
        secure("security_counters", by_user=False, procedures="SELECT, INSERT, UPDATE, DELETE", compliance=False)
    )
    op.execute(secure("security_settings", by_user=False, procedures="SELECT, UPDATE"))


def _rules_and_findings() -> None:
    op.execute(f"""
    -- A subject (an address or a user) with `threshold` or more in `window_seconds` is a finding. What is counted:
    -- occurrences of events of a type, orders that the user submitted, their symbols, or rules that found the subject.
    -- A finding of the last kind is one step more severe than the worst of those.
    CREATE TABLE security_rules (
        rule label PRIMARY KEY,
        measure text NOT NULL CHECK (measure IN ('events', 'orders', 'symbols', 'findings')),
        subject text NOT NULL CHECK (subject IN ('address', 'user')),
        event_type text,
        reasons_ignored text [] NOT NULL DEFAULT '{{}}',
        threshold integer NOT NULL CHECK (threshold > 0),
        window_seconds integer NOT NULL CHECK (window_seconds BETWEEN 10 AND 86400),
        severity text NOT NULL CHECK (severity IN {SEVERITIES}),
        response text CHECK (response IN {RESPONSES}),
        response_seconds integer CHECK (response_seconds BETWEEN 1 AND 86400),
        enabled boolean NOT NULL DEFAULT true,
        CHECK ((measure = 'events') = (event_type IS NOT NULL)),
        CHECK ((response IS NULL) = (response_seconds IS NULL)),
        CHECK (measure NOT IN ('orders', 'symbols') OR subject = 'user'),
        CHECK (response IS NULL OR (response = 'ip_block') = (subject = 'address'))
    );
    INSERT INTO security_rules (
        rule, measure, subject, event_type, reasons_ignored, threshold, window_seconds, severity, response,
        response_seconds
    ) VALUES
    -- A token that was good and has run out, or none at all, is no attempt to guess one.
    ('brute_force', 'events', 'address', 'authentication_failure', '{{expired,bearer_token_required}}', 10, 300, 'high',
        'ip_block', 3600),
    ('rapid_orders', 'orders', 'user', NULL, '{{}}', 50, 3600, 'medium', NULL, NULL),
    ('symbol_diversity', 'symbols', 'user', NULL, '{{}}', 20, 3600, 'medium', NULL, NULL),
    ('rate_limit_of_address', 'events', 'address', 'rate_limit_exceeded', '{{}}', 100, 300, 'medium', NULL, NULL),
    ('rate_limit_of_user', 'events', 'user', 'rate_limit_exceeded', '{{}}', 20, 300, 'medium', NULL, NULL),
    ('enumeration', 'events', 'user', 'data_access', '{{}}', 20, 300, 'medium', NULL, NULL),
    ('privilege_escalation', 'events', 'user', 'privilege_escalation', '{{}}', 3, 600, 'high', NULL, NULL),
    ('correlation_of_address', 'findings', 'address', NULL, '{{}}', 2, 1800, 'medium', NULL, NULL),
    ('correlation_of_user', 'findings', 'user', NULL, '{{}}', 2, 1800, 'medium', NULL, NULL);

    -- One row an episode: it lasts while the rule finds the subject, and for one window after. `response_note` says
    -- why the rule's response was not made.
    CREATE TABLE security_findings (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        rule label NOT NULL REFERENCES security_rules,
        user_id uuid,
        severity text NOT NULL CHECK (severity IN {SEVERITIES}),
        observed positive_count NOT NULL,
        threshold integer NOT NULL,
        window_seconds integer NOT NULL,
        started_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL CHECK (last_seen_at >= started_at),
        ended_at timestamptz CHECK (ended_at >= last_seen_at),
        intervention_id uuid,
        response_note text
    );
    CREATE UNIQUE INDEX security_findings_open ON security_findings (rule, user_id)
    WHERE ended_at IS NULL AND user_id IS NOT NULL;
    CREATE INDEX security_findings_seen ON security_findings (last_seen_at);
    """)
    op.execute(secure("security_rules", by_user=False, procedures="SELECT, UPDATE"))
    op.execute(secure("security_findings", by_user=True))


def _interventions() -> None:
    op.execute("""
    -- A step that is taken for a while and can be taken back. `target` is an account, a function, a feed or the
    -- platform; an address stands in security_pii. `outcome` is what is needed to take it back, and what came of it.
    CREATE TABLE interventions (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        kind text NOT NULL CHECK (kind IN (
            'maintenance', 'ip_block', 'account_suspension', 'reserved_concurrency', 'price_provider'
        )),
        target label,
        user_id uuid,
        parameters jsonb NOT NULL DEFAULT '{}',
        reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
        actor label NOT NULL,
        rule label,
        started_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL CHECK (expires_at > started_at),
        outcome jsonb NOT NULL DEFAULT '{}',
        carried_out_at timestamptz,
        undone_at timestamptz CHECK (undone_at >= started_at),
        undone_by label,
        undo_reason text,
        reverted_at timestamptz,
        start_key caller_key UNIQUE,
        start_hash text,
        CHECK ((kind = 'ip_block') = (target IS NULL)),
        CHECK ((undone_at IS NULL) = (undone_by IS NULL))
    );
    CREATE UNIQUE INDEX interventions_in_force ON interventions (kind, target)
    WHERE undone_at IS NULL AND target IS NOT NULL;
    CREATE INDEX interventions_open ON interventions (expires_at) WHERE undone_at IS NULL;

    -- The version of what the edge keeps a copy of in Redis: it grows with each block and each maintenance that starts
    -- or ends. Its row is also the lock under which interventions start and end.
    CREATE TABLE edge_guard (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        version bigint NOT NULL DEFAULT 1
    );
    INSERT INTO edge_guard DEFAULT VALUES;

    -- Networks that are not blocked, whoever asks for it: of our own offices and monitors. No person's address.
    CREATE TABLE never_blocked (
        network cidr PRIMARY KEY,
        reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
        added_by label NOT NULL,
        added_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    """)
    op.execute(secure("interventions", by_user=False))
    op.execute(secure("edge_guard", by_user=False, procedures="SELECT, UPDATE"))
    op.execute(secure("never_blocked", by_user=False, procedures="SELECT, INSERT, DELETE"))
