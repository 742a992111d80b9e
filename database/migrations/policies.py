"""The row level security that every table gets, in one place."""

OWN_ROWS = "{column} = nullif(current_setting('app.user_id', true), '')::uuid"


def secure(
    table: str,
    *,
    by_user: bool,
    user_column: str = "user_id",
    procedures: str = "SELECT, INSERT, UPDATE",
    compliance: bool = True,
) -> str:
    """SQL that hands `table` to its owner, forces row level security on it and grants each role what it may do there.

    `procedures` is the DML that the writing functions need; the reading functions see only the rows of
    `app.user_id` where the table is `by_user`, else all. `compliance=False` keeps the compliance role out.
    """
    readers = OWN_ROWS.format(column=user_column) if by_user else "true"
    viewers = "compliance, backup" if compliance else "backup"
    return f"""
    ALTER TABLE {table} OWNER TO trading_owner;
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
    CREATE POLICY owner_all ON {table} TO trading_owner USING (true) WITH CHECK (true);
    CREATE POLICY procedures_all ON {table} TO trading_procedures USING (true) WITH CHECK (true);
    CREATE POLICY readers_own ON {table} FOR SELECT TO trading_readers USING ({readers});
    CREATE POLICY viewers_all ON {table} FOR SELECT TO {viewers} USING (true);
    GRANT {procedures} ON {table} TO trading_procedures;
    GRANT SELECT ON {table} TO trading_readers, {viewers};
    """
