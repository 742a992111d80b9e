"""The relay's state: how far each account's events have got, and who is connected to hear them."""

from alembic import op

from database.migrations.policies import secure

revision = "0005"
down_revision = "0004"

CHANNELS = "ARRAY['positions', 'orders', 'account', 'risk', 'market_data']"
SYMBOLS_MAX = 100


def upgrade() -> None:
    op.execute(_EVENT_STREAMS)
    op.execute(_CONNECTIONS)
    op.execute(_CONNECTION_STREAMS)
    op.execute(secure("event_streams", by_user=True))
    # A connection's row has the address it came from, so it is kept from those who only review the books.
    op.execute(secure("connections", by_user=True, procedures="SELECT, INSERT, UPDATE, DELETE", compliance=False))
    op.execute(secure("connection_streams", by_user=True, procedures="SELECT, INSERT, UPDATE, DELETE"))


def downgrade() -> None:
    op.execute("DROP TABLE connection_streams, connections, event_streams")


_EVENT_STREAMS = """
CREATE TABLE event_streams (
    user_id uuid NOT NULL,
    account_id uuid PRIMARY KEY,
    -- Events up to here are published on the Redis channel. Each connection has a cursor of its own.
    pushed_sequence bigint NOT NULL DEFAULT 0 CHECK (pushed_sequence >= 0),
    lease_holder uuid,
    -- Grows with each lease: who comes back late with an older one changes nothing.
    lease_fencing bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    -- Publishing failed a moment ago: not before this.
    retry_at timestamptz,
    FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
) WITH (fillfactor = 70);
"""

_CONNECTIONS = f"""
CREATE TABLE connections (
    connection_id text PRIMARY KEY CHECK (length(connection_id) BETWEEN 1 AND 128),
    -- Null until a token was shown.
    user_id uuid REFERENCES profiles (id),
    role text,
    protocol text,
    source_ip inet,
    connected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    authenticated_at timestamptz,
    acknowledged_at timestamptz,
    token_expires_at timestamptz,
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    channels text[] NOT NULL DEFAULT '{{}}' CHECK (channels <@ {CHANNELS}),
    -- The symbols of market_data; none means every symbol.
    symbols text[] NOT NULL DEFAULT '{{}}' CHECK (cardinality(symbols) <= {SYMBOLS_MAX}),
    CHECK ((user_id IS NULL) = (authenticated_at IS NULL)),
    CHECK ((user_id IS NULL) = (token_expires_at IS NULL)),
    CHECK (user_id IS NOT NULL OR cardinality(channels) = 0)
) WITH (fillfactor = 70);

CREATE INDEX connections_user ON connections (user_id);
CREATE INDEX connections_unauthenticated ON connections (connected_at) WHERE user_id IS NULL;
CREATE INDEX connections_expiry ON connections (token_expires_at) WHERE user_id IS NOT NULL;
CREATE INDEX connections_age ON connections (connected_at);
CREATE INDEX connections_market_data ON connections (connection_id) WHERE 'market_data' = ANY (channels);
"""

_CONNECTION_STREAMS = """
CREATE TABLE connection_streams (
    connection_id text NOT NULL REFERENCES connections (connection_id) ON DELETE CASCADE,
    user_id uuid NOT NULL,
    account_id uuid NOT NULL,
    -- The connection has every event of the account up to here.
    sent_sequence bigint NOT NULL CHECK (sent_sequence >= 0),
    -- Grows with each subscribe, so that a push begun before it cannot move the new cursor.
    subscription bigint NOT NULL DEFAULT 1,
    failed_attempts integer NOT NULL DEFAULT 0,
    -- Not before this: the subscription's answer is on its way, or a post failed a moment ago.
    retry_at timestamptz,
    -- Has something to catch up with; a relay that is awake looks for it by the index.
    waiting boolean NOT NULL DEFAULT false,
    PRIMARY KEY (connection_id, account_id),
    FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
) WITH (fillfactor = 70);

CREATE INDEX connection_streams_account ON connection_streams (account_id);
CREATE INDEX connection_streams_waiting ON connection_streams (account_id) WHERE waiting;
"""
