"""Margin levels as data, by account profile; episodes that know at which of them an account stands."""

from alembic import op

from database.migrations.policies import secure

revision = "0024"
down_revision = "0023"

LEDGER_ENTRY_TYPES = "'deposit', 'withdrawal', 'adjustment', 'realized_pnl', 'commission', 'financing'"


def upgrade() -> None:
    _profiles()
    _overrides()
    _episodes()
    _set_ledger_entry_types(f"{LEDGER_ENTRY_TYPES}, 'negative_balance_protection'")


def downgrade() -> None:
    op.execute("""
    -- One that came to a worse level is told by terms that let it begin where it did.
    UPDATE margin_call_episodes SET
        threshold = entered_level + 0.01, release_level = greatest(release_level, entered_level + 0.01)
    WHERE entered_level >= threshold;
    ALTER TABLE margin_call_episodes DROP COLUMN level_name, DROP COLUMN level_action, DROP COLUMN changed_at,
    ADD CONSTRAINT margin_call_episodes_check1 CHECK (entered_level < threshold);
    UPDATE risk_settings SET
        margin_call_threshold = coalesce(margin_call_threshold, 50),
        margin_call_release_percent = coalesce(margin_call_release_percent, 105),
        stop_out_level = least(coalesce(stop_out_level, 20), coalesce(margin_call_threshold, 50));
    ALTER TABLE risk_settings
    ALTER COLUMN margin_call_threshold SET DEFAULT 50, ALTER COLUMN margin_call_threshold SET NOT NULL,
    ALTER COLUMN margin_call_release_percent SET DEFAULT 105, ALTER COLUMN margin_call_release_percent SET NOT NULL,
    ALTER COLUMN stop_out_level SET DEFAULT 20, ALTER COLUMN stop_out_level SET NOT NULL;
    ALTER TABLE accounts DROP COLUMN margin_profile;
    DROP TABLE margin_profile_defaults, margin_profile_levels, margin_profiles;
    """)
    # What was booked stays booked: the check of earlier releases holds for what comes.
    _set_ledger_entry_types(LEDGER_ENTRY_TYPES, validated=False)


def _profiles() -> None:
    op.execute("""
    CREATE TABLE margin_profiles (
        name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,31}$'),
        description text NOT NULL,
        stop_out_policy text NOT NULL DEFAULT 'largest_loss_first' CHECK (
            stop_out_policy IN ('largest_loss_first', 'most_margin_first', 'fifo', 'smallest_partial_step')
        ),
        -- A balance that a stop-out left below zero is brought back to zero.
        negative_balance_protection boolean NOT NULL DEFAULT false,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );

    -- Percent of margin level. A level begins below its threshold, a stop-out at it already, and is left at
    -- release_percent of it, so that a margin level that hovers there is one episode and not a storm of them.
    CREATE TABLE margin_profile_levels (
        profile text NOT NULL REFERENCES margin_profiles,
        name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]{0,31}$'),
        action text NOT NULL CHECK (action IN ('warn', 'call', 'stop_out')),
        threshold numeric NOT NULL CHECK (threshold BETWEEN 0 AND 1000),
        release_percent numeric NOT NULL DEFAULT 105 CHECK (release_percent BETWEEN 100 AND 200),
        PRIMARY KEY (profile, name)
    );
    -- As many warnings as a profile wants, one call and one stop-out: those an account may set for itself.
    CREATE UNIQUE INDEX margin_profile_levels_once ON margin_profile_levels (profile, action) WHERE action <> 'warn';

    CREATE TABLE margin_profile_defaults (
        kind text NOT NULL CHECK (kind IN ('margin', 'cash')),
        account_tier text NOT NULL CHECK (account_tier IN ('bronze', 'silver', 'gold', 'platinum')),
        profile text NOT NULL REFERENCES margin_profiles,
        PRIMARY KEY (kind, account_tier)
    );

    INSERT INTO margin_profiles (name, description, stop_out_policy, negative_balance_protection) VALUES
    ('standard', 'Margin call at 50 percent, stop-out at 20.', 'largest_loss_first', false),
    ('retail', 'Margin close-out and negative balance protection as ESMA has them.', 'largest_loss_first', true),
    ('cash', 'Borrows nothing, so it has no levels.', 'largest_loss_first', false);
    INSERT INTO margin_profile_levels (profile, name, action, threshold) VALUES
    ('standard', 'margin_call', 'call', 50), ('standard', 'stop_out', 'stop_out', 20),
    ('retail', 'warning', 'warn', 100), ('retail', 'margin_call', 'call', 75), ('retail', 'stop_out', 'stop_out', 50);
    INSERT INTO margin_profile_defaults (kind, account_tier, profile)
    SELECT k.kind, t.tier, k.profile
    FROM (VALUES ('margin', 'standard'), ('cash', 'cash')) AS k (kind, profile)
    CROSS JOIN (VALUES ('bronze'), ('silver'), ('gold'), ('platinum')) AS t (tier);

    -- NULL: that of margin_profile_defaults. What borrows nothing is never called and never stopped out.
    ALTER TABLE accounts
    ADD COLUMN margin_profile text REFERENCES margin_profiles,
    ADD CONSTRAINT cash_has_no_margin_profile CHECK (kind <> 'cash' OR margin_profile IS NULL);
    """)
    for table in ("margin_profiles", "margin_profile_levels", "margin_profile_defaults"):
        op.execute(secure(table, by_user=False, procedures="SELECT"))


def _overrides() -> None:
    op.execute("""
    -- An account's own levels; NULL where they are those of its profile.
    ALTER TABLE risk_settings
    ALTER COLUMN margin_call_threshold DROP DEFAULT, ALTER COLUMN margin_call_threshold DROP NOT NULL,
    ALTER COLUMN margin_call_release_percent DROP DEFAULT, ALTER COLUMN margin_call_release_percent DROP NOT NULL,
    ALTER COLUMN stop_out_level DROP DEFAULT, ALTER COLUMN stop_out_level DROP NOT NULL;
    UPDATE risk_settings SET
        margin_call_threshold = nullif(margin_call_threshold, 50),
        margin_call_release_percent = nullif(margin_call_release_percent, 105),
        stop_out_level = nullif(stop_out_level, 20);
    """)


def _episodes() -> None:
    op.execute("""
    -- Where the account stands in its episode; threshold and release_level are of that level, as they were when it
    -- came there.
    ALTER TABLE margin_call_episodes
    ADD COLUMN level_name text, ADD COLUMN level_action text CHECK (level_action IN ('warn', 'call', 'stop_out')),
    ADD COLUMN changed_at timestamptz;
    UPDATE margin_call_episodes SET
        level_name = 'margin_call', level_action = 'call', changed_at = coalesce(left_at, entered_at);
    ALTER TABLE margin_call_episodes
    ALTER COLUMN level_name SET NOT NULL, ALTER COLUMN level_action SET NOT NULL, ALTER COLUMN changed_at SET NOT NULL,
    DROP CONSTRAINT margin_call_episodes_check1;
    """)


def _set_ledger_entry_types(types: str, *, validated: bool = True) -> None:
    op.execute(f"""
    ALTER DOMAIN ledger_entry_type DROP CONSTRAINT ledger_entry_type_check;
    ALTER DOMAIN ledger_entry_type ADD CONSTRAINT ledger_entry_type_check CHECK (VALUE IN ({types}))
    {"" if validated else "NOT VALID"};
    """)
