"""Alerts that grow worse while they are open: who was told is told again, once each time."""

from alembic import op

revision = "0034"
down_revision = "0033"

NOTICES = ("opened", "escalated", "cleared", "resolved")
EVENTS = (
    "opened",
    "escalated",
    "acknowledged",
    "response_started",
    "response_failed",
    "notified",
    "not_notified",
    "cleared",
    "resolved",
)


def upgrade() -> None:
    _say_kinds("alert_notifications", (*NOTICES, "worsened"))
    _say_kinds("incident_events", (*EVENTS, "worsened"))
    op.execute("""
    -- Whether each further step of the figure is news by itself, as of a count of what differs; of a rate it is not.
    ALTER TABLE alert_rules ADD COLUMN tells_worsening boolean NOT NULL DEFAULT false;
    -- How often the alert has grown worse with this one; 1 for all other kinds.
    ALTER TABLE alert_notifications
    ADD COLUMN round integer NOT NULL DEFAULT 1 CHECK (round > 0),
    DROP CONSTRAINT alert_notifications_alert_id_kind_level_channel_key,
    ADD UNIQUE (alert_id, kind, round, level, channel);
    """)


def downgrade() -> None:
    # What happened stays in the timeline, which is never changed.
    op.execute("""
    DELETE FROM alert_notifications WHERE kind = 'worsened';
    ALTER TABLE alert_notifications DROP COLUMN round, ADD UNIQUE (alert_id, kind, level, channel);
    ALTER TABLE alert_rules DROP COLUMN tells_worsening;
    """)
    _say_kinds("alert_notifications", NOTICES)
    _say_kinds("incident_events", EVENTS)


def _say_kinds(table: str, kinds: tuple[str, ...]) -> None:
    """Let new rows of `table` be of these kinds."""
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.execute(f"""
    ALTER TABLE {table}
    DROP CONSTRAINT {table}_kind_check,
    ADD CONSTRAINT {table}_kind_check CHECK (kind IN ({listed})) NOT VALID;
    """)
