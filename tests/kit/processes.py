"""The processes of a running local system, found the way that an outsider finds them."""

from collections.abc import Callable

import psutil

from tests.kit.local_system import LocalSystem


def postmaster_of(system: LocalSystem) -> psutil.Process:
    """PostgreSQL's first process."""
    return _only(system, lambda words: words[0].endswith("/postgres") and str(system.state.postgres) in words)


def redis_of(system: LocalSystem) -> psutil.Process:
    """Redis's process."""
    return _only(system, lambda words: "/redis-server" in words[0])


def workers_of(system: LocalSystem, service: str) -> list[psutil.Process]:
    """The workers of a function, by the service name that its logs carry; none while the gateway is down."""
    return [worker for worker in _descendants(system) if _variables(worker).get("POWERTOOLS_SERVICE_NAME") == service]


def _only(system: LocalSystem, is_wanted: Callable[[list[str]], bool]) -> psutil.Process:
    found = [process for process in _descendants(system) if (words := _words(process)) and is_wanted(words)]
    assert len(found) == 1, [_words(process) for process in found]
    return found[0]


def _descendants(system: LocalSystem) -> list[psutil.Process]:
    return psutil.Process(system.pid).children(recursive=True)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _variables(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return {}
