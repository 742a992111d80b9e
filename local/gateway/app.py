"""The gateway: everything put together from the template, started and stopped in order."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Mapping

from local.gateway.aws_api import AwsApi, is_connections_call
from local.gateway.connections import Connections
from local.gateway.environments import Credentials, worker_environment
from local.gateway.event_sources import EventSource
from local.gateway.http_api import HttpApi, Receive, Scope, Send
from local.gateway.lambda_api import LambdaApi
from local.gateway.local_values import REGION, LocalValues
from local.gateway.logs import AccessLog, BoundedLog
from local.gateway.pools import Pool
from local.gateway.queues import open_queues
from local.gateway.routes import RouteTable
from local.gateway.schedules import Schedule
from local.gateway.server import Server, address, listen
from local.gateway.settings import Settings
from local.gateway.sqs_api import SqsApi
from local.gateway.stack import Stack, read_stack
from local.gateway.template import Template, load_template
from local.gateway.websocket_api import WebSocketApi

DRAIN_SECONDS = 5
FLUSH_SECONDS = 0.5
REAP_SECONDS = 15.0
READY_PATH = "/_local/ready"

# What a parameter is on this machine whatever the template's default says; gateway.json wins.
LOCAL_PARAMETERS: Mapping[str, object] = {"Stage": "local"}


class Gateway:
    """One running deployment. Make it inside a running event loop; StartError says why it cannot start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._public_listener = listen(settings.port)
        self._aws_listener = listen(0)
        self.address = address(self._public_listener)
        self.aws_endpoint = f"http://{address(self._aws_listener)}"
        self._credentials = Credentials(f"LOCAL{secrets.token_hex(8).upper()}", secrets.token_hex(20))
        self._stack = self._read_stack()
        self.pools = {name: self._pool(name) for name in self._stack.functions}
        self._access = AccessLog(settings.logs / "access.log")
        queues = open_queues(list(self._stack.queues))
        connections = Connections()
        self._functions = LambdaApi(self.pools.values(), queues)
        aws = AwsApi(self._credentials, SqsApi(queues), self._functions, connections)
        http = HttpApi(RouteTable(self._stack.http_routes), self._stack.cors, self.pools, self._access)
        websocket = self._stack.websocket and WebSocketApi(self._stack.websocket, self.pools, connections)
        self._public = Server(_PublicApp(http, websocket, aws), self._public_listener, DRAIN_SECONDS)
        self._aws = Server(aws, self._aws_listener, 1)
        self._sources = [
            EventSource(spec, queues[spec.queue_arn], self.pools[spec.function]) for spec in self._stack.mappings
        ]
        self._schedules = [Schedule(spec, self.pools[spec.function], queues) for spec in self._stack.schedules]
        self._chores: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Serve, poll the queues and run the schedules."""
        self._write_credentials()
        self._aws.start()
        self._public.start()
        for runner in (*self._sources, *self._schedules):
            runner.start()
        self._chores = [asyncio.create_task(self._flush()), asyncio.create_task(self._reap())]

    async def stop(self) -> None:
        """Accept nothing more, drain requests and batches for DRAIN_SECONDS at most, then end the workers."""
        for starter in (*self._schedules, self._functions):
            starter.stop()
        for source in self._sources:
            source.stop_polling()
        batches = asyncio.gather(*(source.drained() for source in self._sources))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS + 1):
                await asyncio.gather(self._public.stop(), batches)
        await asyncio.gather(*(pool.stop() for pool in self.pools.values()))
        await self._aws.stop()
        for chore in self._chores:
            chore.cancel()
        self._access.flush()

    def _read_stack(self) -> Stack:
        settings = self._settings
        content = load_template(settings.template)
        declared = content.get("Parameters", {})
        local = {name: value for name, value in LOCAL_PARAMETERS.items() if name in declared}
        values = LocalValues(
            template=content,
            secrets=settings.secrets,
            overrides={**local, **settings.parameters},
            aws_endpoint=self.aws_endpoint,
            public_address=self.address,
        )
        return read_stack(Template(content, values, settings.template.parent))

    def _pool(self, name: str) -> Pool:
        spec = self._stack.functions[name]
        environment = worker_environment(spec, self._credentials, self.aws_endpoint)
        log = BoundedLog(self._settings.logs / f"{spec.folder.name}.log")
        return Pool(spec, environment, self._settings.workers_max, log)

    def _write_credentials(self) -> None:
        """Let people and tests look into the queues and invoke functions with any AWS client."""
        lines = {
            "AWS_ENDPOINT_URL": self.aws_endpoint,
            "AWS_ACCESS_KEY_ID": self._credentials.key_id,
            "AWS_SECRET_ACCESS_KEY": self._credentials.secret,
            "AWS_REGION": REGION,
        }
        path = self._settings.state / "aws"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
            handle.writelines(f"{name}={value}\n" for name, value in lines.items())

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._access.flush()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            for pool in self.pools.values():
                pool.reap()


class _PublicApp:
    """What the public port serves."""

    def __init__(self, http: HttpApi, websocket: WebSocketApi | None, aws: AwsApi) -> None:
        self._http = http
        self._websocket = websocket
        self._aws = aws

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to its API."""
        if scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        elif scope["path"] == READY_PATH:
            body = b'{"status":"ready","pid":%d}' % os.getpid()
            lines = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": lines})
            await send({"type": "http.response.body", "body": body})
        elif is_connections_call(scope["path"]):
            await self._aws(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._websocket is None:
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self._websocket(scope, receive, send)
