"""What each hour came to: the figures of the orders that ended in it."""

from alembic import op

from database.migrations.policies import secure

revision = "0031"
down_revision = "0030"

TABLE = "performance_reports"


def upgrade() -> None:
    op.execute(f"""
    -- One row an hour, written once it is over; latencies in milliseconds, 0 where no order was executed.
    CREATE TABLE {TABLE} (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        hour_start timestamptz NOT NULL UNIQUE CHECK (hour_start = date_trunc('hour', hour_start, 'UTC')),
        total_orders bigint NOT NULL CHECK (total_orders = executed_orders + refused_orders + failed_orders),
        executed_orders bigint NOT NULL CHECK (executed_orders >= 0),
        refused_orders bigint NOT NULL CHECK (refused_orders >= 0),
        failed_orders bigint NOT NULL CHECK (failed_orders >= 0),
        latency_average_ms numeric NOT NULL,
        latency_p50_ms numeric NOT NULL,
        latency_p95_ms numeric NOT NULL,
        latency_p99_ms numeric NOT NULL,
        reported_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    """)
    op.execute(secure(TABLE, by_user=False, procedures="SELECT, INSERT, DELETE"))


def downgrade() -> None:
    op.execute(f"DROP TABLE {TABLE}")
