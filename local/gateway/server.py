"""uvicorn inside a process that has more to do: no signals of its own, started and stopped by its owner."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import uvicorn

from local.gateway.connections import MESSAGE_BYTES_MAX
from local.gateway.settings import HOST
from local.gateway.websocket_api import FRAME_BYTES_MAX
from local.processes import StartError

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75

App = Callable[[Any, Any, Any], Awaitable[None]]


def listen(port: int) -> socket.socket:
    """Bind a port of the loopback interface, 0 for a free one; StartError when it is taken."""
    try:
        return socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"Port {port} is in use: stop what holds it, or choose another with PORT=.") from None
        raise StartError(f"Port {port} cannot be opened: {error.strerror}.") from None


def address(listener: socket.socket) -> str:
    """host:port of a bound socket."""
    host, port = listener.getsockname()
    return f"{host}:{port}"


class Server:
    """An ASGI application on a bound socket."""

    def __init__(self, app: App, listener: socket.socket, drain_seconds: int) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="websockets-sansio",
            # uvicorn hands the limit on as it is; websockets takes (message, frame).
            ws_max_size=(MESSAGE_BYTES_MAX, FRAME_BYTES_MAX),  # pyright: ignore[reportArgumentType]
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
        )
        self._server = _Embedded(config)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve; the socket listens already."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Accept nothing more, let what is under way end within the drain time, then cut it off."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Embedded(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the process's signals alone."""
        yield
