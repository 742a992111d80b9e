"""What the gateway runs, as plain values out of the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.gateway.intrinsics import TemplateError
from local.gateway.template import Template

HTTP_INTEGRATION_SECONDS_MAX = 29.0
RETRIES_DEFAULT = 2
EVENT_AGE_SECONDS_DEFAULT = 21600
_SECONDS_OF_UNIT = {"minute": 60, "minutes": 60, "hour": 3600, "hours": 3600, "day": 86400, "days": 86400}


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One Lambda function. `folder` holds its code, `layers` the roots of its layers, `seconds` is its time limit."""

    logical_id: str
    name: str
    arn: str
    handler: str
    folder: Path
    layers: tuple[Path, ...]
    seconds: float
    memory: int
    environment: Mapping[str, str]
    concurrency: int | None
    retries: int
    event_age_seconds: int
    failure_queue: str | None
    log_format: str
    log_level: str | None


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A route of the HTTP API: `key` is "METHOD /path" or "$default"."""

    key: str
    function: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Cors:
    """The CorsConfiguration of the HTTP API."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    seconds: int | None
    credentials: bool


@dataclass(frozen=True, slots=True)
class WebSocketSpec:
    """The WebSocket API: its selection key (a path into the JSON body) and function and answer of each route."""

    logical_id: str
    stage: str
    selection: tuple[str, ...]
    routes: Mapping[str, str]
    answering: frozenset[str]


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """One standard queue; times in seconds."""

    name: str
    arn: str
    url: str
    visibility: int
    delay: int
    retention: int
    wait: int
    bytes_max: int
    dead_letter_arn: str | None
    receives_max: int


@dataclass(frozen=True, slots=True)
class MappingSpec:
    """A function fed by a queue."""

    function: str
    queue_arn: str
    batch_size: int
    window_seconds: float
    partial_failures: bool
    concurrency: int | None


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A function invoked asynchronously each `seconds`."""

    name: str
    function: str
    seconds: float
    input: str | None


@dataclass(frozen=True, slots=True)
class Stack:
    """All of it. Functions are named by logical id."""

    functions: Mapping[str, FunctionSpec]
    http_routes: Sequence[HttpRoute]
    cors: Cors | None
    websocket: WebSocketSpec | None
    queues: Sequence[QueueSpec]
    mappings: Sequence[MappingSpec]
    schedules: Sequence[ScheduleSpec]


def read_stack(template: Template) -> Stack:
    """Everything that the gateway runs of a template; TemplateError names what it cannot run."""
    functions = {name: _function(template, name) for name in template.of_type("AWS::Serverless::Function")}
    routes: list[HttpRoute] = []
    mappings: list[MappingSpec] = []
    schedules: list[ScheduleSpec] = []
    for name in functions:
        events: Mapping[str, Any] = template.properties(name, "Events").get("Events", {})
        for event, content in events.items():
            where, properties = f"{name}.{event}", content.get("Properties", {})
            match content["Type"]:
                case "HttpApi":
                    routes.append(_http_route(where, name, properties))
                case "SQS":
                    mappings += _mapping(where, name, properties)
                case "ScheduleV2":
                    schedules += _schedule(where, name, properties)
                case kind:
                    raise TemplateError(f"{where}: the event type {kind} is not known to the local gateway.")
    queues = [_queue(template, name) for name in template.of_type("AWS::SQS::Queue")]
    _check_mappings(mappings, queues, functions)
    return Stack(
        functions=functions,
        http_routes=routes,
        cors=_cors(template),
        websocket=_websocket(template, functions),
        queues=queues,
        mappings=mappings,
        schedules=schedules,
    )


def _only(where: str, properties: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(properties) - known)
    if unknown:
        raise TemplateError(f"{where}: {', '.join(unknown)} is not known to the local gateway.")


def _function(template: Template, name: str) -> FunctionSpec:
    properties = template.properties(
        name,
        "CodeUri",
        "Handler",
        "Timeout",
        "MemorySize",
        "Environment",
        "ReservedConcurrentExecutions",
        "EventInvokeConfig",
        "LoggingConfig",
    )
    folder = template.folder / properties["CodeUri"]
    if not folder.is_dir():
        raise TemplateError(f"{name}: its folder {folder} is missing.")
    invoke = properties.get("EventInvokeConfig", {})
    logging = properties.get("LoggingConfig", {})
    variables = properties.get("Environment", {}).get("Variables", {})
    concurrency: Any = properties.get("ReservedConcurrentExecutions")
    return FunctionSpec(
        logical_id=name,
        name=template.values.name(name, template.resolver),
        arn=template.values.arn(name, template.resolver),
        handler=properties["Handler"],
        folder=folder,
        layers=tuple(_layers(template, name)),
        seconds=float(properties.get("Timeout", 3)),
        memory=int(properties.get("MemorySize", 128)),
        environment={key: template.values.localise(_plain(value)) for key, value in variables.items()},
        concurrency=None if concurrency is None else int(concurrency),
        retries=int(invoke.get("MaximumRetryAttempts", RETRIES_DEFAULT)),
        event_age_seconds=int(invoke.get("MaximumEventAgeInSeconds", EVENT_AGE_SECONDS_DEFAULT)),
        failure_queue=_failure_queue(name, invoke),
        log_format=logging.get("LogFormat", "Text"),
        log_level=logging.get("ApplicationLogLevel"),
    )


def _failure_queue(name: str, invoke: Mapping[str, Any]) -> str | None:
    destinations = invoke.get("DestinationConfig", {})
    _only(f"{name}.EventInvokeConfig.DestinationConfig", destinations, {"OnFailure"})
    failure = destinations.get("OnFailure")
    if failure is None:
        return None
    if failure.get("Type") != "SQS":
        raise TemplateError(f"{name}: only a queue can be the OnFailure destination in the local gateway.")
    return failure["Destination"]


def _layers(template: Template, name: str) -> list[Path]:
    arns = {
        template.values.arn(layer, template.resolver): layer
        for layer in template.of_type("AWS::Serverless::LayerVersion")
    }
    folders: list[Path] = []
    for arn in template.properties(name, "Layers").get("Layers", []):
        if arn not in arns:
            raise TemplateError(f"{name}: the layer {arn} is not one of the template.")
        folders.append(template.folder / template.properties(arns[arn], "ContentUri")["ContentUri"])
    return folders


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TemplateError(f"No text for an environment variable: {value}")


def _http_route(where: str, function: str, properties: Mapping[str, Any]) -> HttpRoute:
    _only(where, properties, {"ApiId", "Path", "Method", "TimeoutInMillis", "PayloadFormatVersion", "RouteSettings"})
    if str(properties.get("PayloadFormatVersion", "2.0")) != "2.0":
        raise TemplateError(f"{where}: only payload format 2.0 is known to the local gateway.")
    seconds = min(int(properties.get("TimeoutInMillis", 30000)) / 1000, HTTP_INTEGRATION_SECONDS_MAX)
    if "Path" not in properties:
        return HttpRoute("$default", function, seconds)
    method = str(properties.get("Method", "ANY")).upper()
    return HttpRoute(
        f"{'ANY' if method == 'X-AMAZON-APIGATEWAY-ANY' else method} {properties['Path']}", function, seconds
    )


def _cors(template: Template) -> Cors | None:
    apis = template.of_type("AWS::Serverless::HttpApi")
    if len(apis) > 1:
        raise TemplateError(f"The local gateway serves one HTTP API, the template has {', '.join(apis)}.")
    settings: Any = template.properties(apis[0], "CorsConfiguration").get("CorsConfiguration") if apis else None
    if not settings:
        return None
    if isinstance(settings, str):
        settings = {"AllowOrigins": [settings]}
    if settings is True:
        settings = {"AllowOrigins": ["*"]}
    return Cors(
        origins=tuple(settings.get("AllowOrigins", ())),
        methods=tuple(settings.get("AllowMethods", ())),
        headers=tuple(settings.get("AllowHeaders", ())),
        exposed=tuple(settings.get("ExposeHeaders", ())),
        seconds=None if settings.get("MaxAge") is None else int(settings["MaxAge"]),
        credentials=bool(settings.get("AllowCredentials", False)),
    )


def _websocket(template: Template, functions: Mapping[str, FunctionSpec]) -> WebSocketSpec | None:
    apis = template.of_type("AWS::Serverless::WebSocketApi")
    if not apis:
        return None
    if len(apis) > 1:
        raise TemplateError(f"The local gateway serves one WebSocket API, the template has {', '.join(apis)}.")
    (name,) = apis
    properties = template.properties(name, "StageName", "RouteSelectionExpression", "Routes", "Auth")
    if properties.get("Auth", {}).get("AuthType", "NONE") != "NONE":
        raise TemplateError(f"{name}: an authorizer is not known to the local gateway.")
    expression = properties["RouteSelectionExpression"]
    if not expression.startswith("$request.body."):
        raise TemplateError(f"{name}: the RouteSelectionExpression {expression} is not known to the local gateway.")
    by_arn = {spec.arn: spec.logical_id for spec in functions.values()}
    routes: dict[str, str] = {}
    answering: set[str] = set()
    for key, route in properties["Routes"].items():
        _only(f"{name}.{key}", route, {"FunctionArn", "RouteResponseSelectionExpression"})
        if route["FunctionArn"] not in by_arn:
            raise TemplateError(f"{name}.{key}: {route['FunctionArn']} is no function of the template.")
        routes[key] = by_arn[route["FunctionArn"]]
        if "RouteResponseSelectionExpression" in route:
            answering.add(key)
    selection = tuple(expression.removeprefix("$request.body.").split("."))
    return WebSocketSpec(name, properties.get("StageName", "default"), selection, routes, frozenset(answering))


def _queue(template: Template, name: str) -> QueueSpec:
    properties = template.properties(
        name,
        "FifoQueue",
        "VisibilityTimeout",
        "DelaySeconds",
        "MessageRetentionPeriod",
        "ReceiveMessageWaitTimeSeconds",
        "MaximumMessageSize",
        "RedrivePolicy",
    )
    if properties.get("FifoQueue"):
        raise TemplateError(f"{name}: FIFO queues are not known to the local gateway.")
    redrive = properties.get("RedrivePolicy", {})
    queue_name = template.values.name(name, template.resolver)
    return QueueSpec(
        name=queue_name,
        arn=template.values.arn(name, template.resolver),
        url=template.values.queue_url(queue_name),
        visibility=int(properties.get("VisibilityTimeout", 30)),
        delay=int(properties.get("DelaySeconds", 0)),
        retention=int(properties.get("MessageRetentionPeriod", 345600)),
        wait=int(properties.get("ReceiveMessageWaitTimeSeconds", 0)),
        bytes_max=int(properties.get("MaximumMessageSize", 1024 * 1024)),
        dead_letter_arn=redrive.get("deadLetterTargetArn"),
        receives_max=int(redrive.get("maxReceiveCount", 0)),
    )


def _mapping(where: str, function: str, properties: Mapping[str, Any]) -> list[MappingSpec]:
    _only(
        where,
        properties,
        {"Queue", "BatchSize", "MaximumBatchingWindowInSeconds", "FunctionResponseTypes", "ScalingConfig", "Enabled"},
    )
    if properties.get("Enabled") in {False, "false"}:
        return []
    concurrency = properties.get("ScalingConfig", {}).get("MaximumConcurrency")
    mapping = MappingSpec(
        function=function,
        queue_arn=properties["Queue"],
        batch_size=int(properties.get("BatchSize", 10)),
        window_seconds=float(properties.get("MaximumBatchingWindowInSeconds", 0)),
        partial_failures="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", ()),
        concurrency=None if concurrency is None else int(concurrency),
    )
    return [mapping]


def _check_mappings(
    mappings: Sequence[MappingSpec], queues: Sequence[QueueSpec], functions: Mapping[str, FunctionSpec]
) -> None:
    """Lambda refuses a queue that would give out a message again while the function may still work on it."""
    by_arn = {queue.arn: queue for queue in queues}
    for mapping in mappings:
        if mapping.queue_arn not in by_arn:
            raise TemplateError(f"{mapping.function}: {mapping.queue_arn} is no queue of the template.")
        visibility, seconds = by_arn[mapping.queue_arn].visibility, functions[mapping.function].seconds
        if visibility < seconds:
            name = by_arn[mapping.queue_arn].name
            raise TemplateError(
                f"{mapping.function}: it may take {seconds:.0f} s, {name} hides messages {visibility} s."
            )


def _schedule(where: str, function: str, properties: Mapping[str, Any]) -> list[ScheduleSpec]:
    # RetryPolicy and DeadLetterConfig are about events that never reach the function's own queue of asynchronous
    # invocations. That cannot happen inside one process; its errors are the business of EventInvokeConfig.
    known = {
        "ScheduleExpression",
        "State",
        "Input",
        "RetryPolicy",
        "DeadLetterConfig",
        "FlexibleTimeWindow",
        "OmitName",
        "Name",
        "Description",
        "PermissionsBoundary",
        "RoleArn",
    }
    _only(where, properties, known)
    if properties.get("FlexibleTimeWindow", {}).get("Mode", "OFF") != "OFF":
        raise TemplateError(f"{where}: a FlexibleTimeWindow is not known to the local gateway.")
    if properties.get("State", "ENABLED") == "DISABLED":
        return []
    schedule = ScheduleSpec(
        name=where.replace(".", ""),
        function=function,
        seconds=_rate(where, properties["ScheduleExpression"]),
        input=properties.get("Input"),
    )
    return [schedule]


def _rate(where: str, expression: str) -> float:
    words = expression.removeprefix("rate(").removesuffix(")").split()
    if expression.startswith("rate(") and len(words) == 2 and words[0].isdigit() and words[1] in _SECONDS_OF_UNIT:
        return float(int(words[0]) * _SECONDS_OF_UNIT[words[1]])
    raise TemplateError(f"{where}: the schedule {expression} is not known to the local gateway, only rate(...) is.")
