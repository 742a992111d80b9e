"""Roles that the migrations make, in one place."""

from collections.abc import Mapping

IDLE_IN_TRANSACTION_MS_MAX = 5000
CONNECTION_CHECK_MS = 1000


def create_role(role: str, login: str) -> str:
    """SQL that makes `role` where the cluster has none, and lets its creator own for it; `login`: LOGIN or NOLOGIN."""
    # The creator holds the ADMIN option; INHERIT and SET let it own and replace what the role owns.
    return f"""
    DO $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            CREATE ROLE {role} {login} NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
        END IF;
        IF NOT pg_has_role(current_user, '{role}', 'USAGE') THEN
            GRANT {role} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;
        END IF;
    END
    $$;
    """


def limit_role(role: str, limits: Mapping[str, int]) -> str:
    """SQL that bounds what one statement of the login `role` may take by `limits`, in milliseconds."""
    settings = dict(limits) | {"idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MS_MAX}
    if role.startswith("function_"):
        settings["client_connection_check_interval"] = CONNECTION_CHECK_MS
    return "".join(f"ALTER ROLE {role} SET {name} = {milliseconds};\n" for name, milliseconds in settings.items())
