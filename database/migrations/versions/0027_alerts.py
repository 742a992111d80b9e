"""Alerts: the rules, what is alight, who was told, and incidents with their timelines; and who reads the figures."""

from alembic import op

from database.migrations.policies import secure
from database.migrations.roles import create_role, limit_role

revision = "0027"
down_revision = "0026"

LOGIN = "function_alerts"
# Below the time that the function gives the database, so that a slow figure fails and not the run.
LIMITS_MS = {"statement_timeout": 5000, "lock_timeout": 4000}
# Owns the functions that count: it reads across users, and of each table only what it counts.
READER = "trading_watchers"
COUNTED = {
    "accounts": "user_id, id, last_sequence",
    "event_streams": "account_id, pushed_sequence",
    "events": "user_id, account_id, sequence, created_at",
    "figure_samples": "figure, subject, observed_at, value, samples",
    "instruments": "symbol, calendar, is_active, quote_age_ms_max, venue",
    "margin_scan": "updated_at",
    "market_calendars": "name, always_open",
    "market_sessions": "calendar, opens_at, closes_at",
    "order_audit_log": "user_id, id, order_id, action, status, details, created_at",
    "quotes": "symbol, quoted_at, received_at",
    "releases": "version, first_seen_at",
    "security_findings": "severity, ended_at",
    "trading_state_changes": "id, scope, symbol, actor",
    "trigger_queue": "user_id, subject_id, touched_at",
    "venue_routes": "user_id, order_id, venue, state, submitted_at, updated_at",
}
SEVERITY = "('critical', 'warning', 'info')"
APPEND_ONLY = "incident_events"


def upgrade() -> None:
    op.execute(create_role(LOGIN, "LOGIN"))
    op.execute(limit_role(LOGIN, LIMITS_MS))
    op.execute(create_role(READER, "NOLOGIN"))
    op.execute(f"GRANT USAGE ON SCHEMA public TO {LOGIN}, {READER}")
    op.execute(_RULES)
    op.execute(_ALERTS)
    op.execute(_INCIDENTS)
    op.execute(_WORK)
    op.execute(_FIGURES)
    for table in ("alert_rules", "alert_channels", "alert_escalations"):
        op.execute(secure(table, by_user=False, procedures="SELECT"))
    for table in ("alerts", "incidents", "alert_notifications", "alert_responses", "alert_evaluation"):
        op.execute(secure(table, by_user=False))
    op.execute(secure("alert_conditions", by_user=False, procedures="SELECT, INSERT, UPDATE, DELETE"))
    op.execute(secure("figure_samples", by_user=False, procedures="SELECT, INSERT, UPDATE, DELETE"))
    op.execute(secure("alert_answers", by_user=False, procedures="SELECT, INSERT, DELETE", compliance=False))
    op.execute(secure(APPEND_ONLY, by_user=False, procedures="SELECT, INSERT"))
    op.execute(secure("releases", by_user=False, procedures="SELECT, INSERT"))
    op.execute(f"""
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {APPEND_ONLY}
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON {APPEND_ONLY}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    ALTER TABLE {APPEND_ONLY} ENABLE ALWAYS TRIGGER append_only;
    ALTER TABLE {APPEND_ONLY} ENABLE ALWAYS TRIGGER append_only_whole;
    """)
    for table, columns in COUNTED.items():
        op.execute(f"""
        CREATE POLICY watchers_all ON {table} FOR SELECT TO {READER} USING (true);
        GRANT SELECT ({columns}) ON {table} TO {READER};
        """)


def downgrade() -> None:
    op.execute("""
    DROP TABLE alert_evaluation, alert_answers, alert_responses, alert_notifications, incident_events, incidents,
        alert_conditions, alerts, alert_escalations, alert_rules, alert_channels, figure_samples, releases;
    """)
    for table, columns in COUNTED.items():
        if table not in ("figure_samples", "releases"):
            op.execute(f"DROP POLICY watchers_all ON {table}; REVOKE SELECT ({columns}) ON {table} FROM {READER};")
    op.execute(f"REVOKE ALL ON SCHEMA public FROM {LOGIN}, {READER}")


_RULES = f"""
-- Where messages go, by the names that rules use; how each is reached is the function's configuration.
CREATE TABLE alert_channels (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z_]{{0,31}}$'),
    -- Told in its place when it fails; NULL for the one that cannot.
    fallback text REFERENCES alert_channels CHECK (fallback <> name),
    description text NOT NULL
);

-- An alert opens when its figure is breached for for_seconds, and ends when it has been at clear_threshold or on its
-- good side for clear_for_seconds: what lies between the two thresholds changes nothing. With fewer than samples_min
-- observations a figure says nothing at all, neither good nor bad.
CREATE TABLE alert_rules (
    name text PRIMARY KEY CHECK (name ~ '^[A-Z][A-Z0-9_]{{2,63}}$'),
    title text NOT NULL,
    figure text NOT NULL CHECK (figure ~ '^[a-z][a-z0-9_]{{2,63}}$'),
    comparison text NOT NULL CHECK (comparison IN ('above', 'below')),
    threshold numeric NOT NULL,
    clear_threshold numeric NOT NULL,
    -- The observations that the figure is of; 0 for one of the present moment.
    window_seconds integer NOT NULL CHECK (window_seconds BETWEEN 0 AND 86400),
    for_seconds integer NOT NULL DEFAULT 0 CHECK (for_seconds BETWEEN 0 AND 3600),
    clear_for_seconds integer NOT NULL DEFAULT 0 CHECK (clear_for_seconds BETWEEN 0 AND 3600),
    samples_min integer NOT NULL DEFAULT 1 CHECK (samples_min >= 1),
    severity text NOT NULL CHECK (severity IN {SEVERITY}),
    channels text [] NOT NULL CHECK (cardinality(channels) > 0),
    -- Whose clock runs while nobody has acknowledged it; NULL for nobody's.
    escalation text,
    -- Kinds of interventions that are begun when it opens.
    responses text [] NOT NULL DEFAULT '{{}}' CHECK (cardinality(responses) = 0 OR severity = 'critical'),
    runbook text,
    enabled boolean NOT NULL DEFAULT true,
    CHECK (CASE comparison WHEN 'above' THEN clear_threshold <= threshold ELSE clear_threshold >= threshold END)
);

-- Who is told how long after an alert opened that nobody has acknowledged. Level 1 are the rule's own channels.
CREATE TABLE alert_escalations (
    policy text NOT NULL,
    level integer NOT NULL CHECK (level BETWEEN 1 AND 5),
    after_seconds integer NOT NULL CHECK (after_seconds >= 0),
    addressee text NOT NULL,
    channels text [] NOT NULL,
    PRIMARY KEY (policy, level),
    CHECK (level > 1 OR after_seconds = 0)
);
"""

_ALERTS = f"""
CREATE TABLE alerts (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    rule text NOT NULL REFERENCES alert_rules,
    -- What it is about where a figure has several: a function, a venue, a collector; else empty.
    subject text NOT NULL DEFAULT '' CHECK (length(subject) <= 128),
    severity text NOT NULL CHECK (severity IN {SEVERITY}),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'cleared', 'resolved')),
    -- The rule's when it opened, and the figure: when it opened, the last one, the worst.
    threshold numeric NOT NULL,
    opened_value numeric NOT NULL,
    last_value numeric NOT NULL,
    worst_value numeric NOT NULL,
    samples bigint NOT NULL CHECK (samples > 0),
    opened_at timestamptz NOT NULL,
    last_breached_at timestamptz NOT NULL CHECK (last_breached_at >= opened_at),
    escalation_level integer NOT NULL DEFAULT 1,
    acknowledged_at timestamptz CHECK (acknowledged_at >= opened_at),
    acknowledged_by text,
    ended_at timestamptz CHECK (ended_at >= opened_at),
    resolved_by text,
    note text CHECK (length(note) BETWEEN 1 AND 1000),
    CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL)),
    CHECK ((state = 'open') = (ended_at IS NULL)),
    CHECK ((state = 'resolved') = (resolved_by IS NOT NULL))
);
-- However many copies evaluate, one alert of a rule and a subject is open.
CREATE UNIQUE INDEX alerts_open ON alerts (rule, subject) WHERE state = 'open';

-- Since when a figure is breached, or good again: what a rule's and a clear condition's duration are counted from.
CREATE TABLE alert_conditions (
    rule text NOT NULL REFERENCES alert_rules,
    subject text NOT NULL,
    breached_since timestamptz,
    good_since timestamptz,
    PRIMARY KEY (rule, subject),
    CHECK ((breached_since IS NULL) OR (good_since IS NULL))
);

-- One run at a time changes alerts; its time is never before that of the run before.
CREATE TABLE alert_evaluation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    evaluated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO alert_evaluation DEFAULT VALUES;
"""

_INCIDENTS = """
CREATE TABLE incidents (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    alert_id uuid NOT NULL UNIQUE REFERENCES alerts,
    title text NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz CHECK (closed_at >= opened_at)
);

-- What happened in an incident, in the order of its places; never changed.
CREATE TABLE incident_events (
    incident_id uuid NOT NULL REFERENCES incidents,
    place integer NOT NULL CHECK (place > 0),
    kind text NOT NULL CHECK (kind IN (
        'opened', 'escalated', 'acknowledged', 'response_started', 'response_failed', 'notified', 'not_notified',
        'cleared', 'resolved'
    )),
    actor text NOT NULL,
    details jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (incident_id, place)
);
"""

_WORK = """
-- The outbox of what is to be told. A row is sent after the commit that wrote it, at least once; its id goes with each
-- attempt, so that who is told twice can see it.
CREATE TABLE alert_notifications (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    alert_id uuid NOT NULL REFERENCES alerts,
    kind text NOT NULL CHECK (kind IN ('opened', 'escalated', 'cleared', 'resolved')),
    level integer NOT NULL,
    addressee text NOT NULL,
    channel text NOT NULL REFERENCES alert_channels,
    -- The one that failed, in whose place this is.
    instead_of uuid REFERENCES alert_notifications,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    last_error text,
    due_at timestamptz NOT NULL,
    lease_holder uuid,
    lease_expires_at timestamptz,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    UNIQUE (alert_id, kind, level, channel)
) WITH (fillfactor = 70);
CREATE INDEX alert_notifications_due ON alert_notifications (due_at) WHERE state = 'pending';

-- Automatic responses that an alert asks for; each is begun once, as an intervention that one call undoes.
CREATE TABLE alert_responses (
    alert_id uuid NOT NULL REFERENCES alerts,
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'done', 'failed')),
    outcome jsonb,
    attempts integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (alert_id, kind),
    CHECK ((state = 'due') = (ended_at IS NULL))
);

-- What was answered to people, so that a repeat of theirs changes nothing and hears it again.
CREATE TABLE alert_answers (
    actor text NOT NULL,
    idempotency_key caller_key NOT NULL,
    request_hash text NOT NULL,
    answer jsonb NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (actor, idempotency_key)
);
"""

_FIGURES = """
-- Figures as they were, for what compares with the past; a fortnight of them is kept.
CREATE TABLE figure_samples (
    figure text NOT NULL,
    subject text NOT NULL,
    observed_at timestamptz NOT NULL,
    value numeric NOT NULL,
    samples bigint NOT NULL CHECK (samples > 0),
    PRIMARY KEY (figure, subject, observed_at)
);
CREATE INDEX figure_samples_observed ON figure_samples USING brin (observed_at) WITH (autosummarize = on);

-- When each release was first seen running.
CREATE TABLE releases (
    version text PRIMARY KEY CHECK (length(version) BETWEEN 1 AND 128),
    first_seen_at timestamptz NOT NULL
);
"""
