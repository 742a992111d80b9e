"""What template.yaml promises about every function, so that the next one cannot forget it."""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.gateway.template import load_template, merge
from local.servers import LOGIN_ROLES
from tests.kit.functions import deployed_handler
from trading.collectors.from_cloudwatch import ORDER_ROUTES
from trading.quotes.feed import REMAINING_MS_MIN
from trading.quotes.single_flight import WAIT_SECONDS
from trading.settings import CLAIMS, ConfigurationError, Settings
from trading.store.database import CONNECT_SECONDS_MAX

ROOT = Path(__file__).parents[2]
TEMPLATE = load_template(ROOT / "template.yaml")
RESOURCES: Mapping[str, Any] = TEMPLATE["Resources"]
PARAMETERS: Mapping[str, Any] = TEMPLATE["Parameters"]
STAGES: Mapping[str, Any] = tomllib.loads((ROOT / "samconfig.toml").read_text())

GATEWAY_SECONDS_MAX = 29
# Lambda's limits on what names a function's variables, and on who may invoke it.
ENVIRONMENT_BYTES_MAX = 4096
POLICY_BYTES_MAX = 20_480
# What a route's permission comes to besides its path.
PERMISSION_BYTES = 500
# What stands before the name in the ARN of a topic or in the URL of a queue; and a secret's ARN.
ADDRESSED = {"AWS::SNS::Topic", "AWS::SQS::Queue"}
ADDRESS_BYTES = 60
SECRET_BYTES = 120
CONCURRENCY_SUFFIX = "Concurrency"
# AWS knows no narrower resource for the actions of these statements.
UNBOUND_STATEMENTS = {"RuntimePolicy": {"Traces", "NetworkInterfaces"}, "MetricsPolicy": {"Metrics"}}
# Who asks CloudWatch.
METRICS_READERS = {"EvaluateAlertsFunction"}
FRONT_END_HEADERS = {"Authorization", "Content-Type", "X-CSRF-Token", "X-Request-ID", "Idempotency-Key"}
EXPOSED_HEADERS = {
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Idempotency-Replayed",
    "X-Request-ID",
    "X-Cache",
}
SOCKET_ROUTES = {"$connect", "$disconnect", "auth", "subscribe", "unsubscribe", "ping", "$default"}


def resources_of(kind: str) -> dict[str, dict[str, Any]]:
    return {name: found["Properties"] for name, found in RESOURCES.items() if found["Type"] == kind}


FUNCTIONS = {
    name: merge(TEMPLATE["Globals"]["Function"], properties)
    for name, properties in resources_of("AWS::Serverless::Function").items()
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def folder_of(function: Mapping[str, Any]) -> str:
    return Path(function["CodeUri"]).name


def events_of(function: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event["Properties"] for event in function.get("Events", {}).values() if event["Type"] == kind]


def environment_of(name: str) -> dict[str, Any]:
    return FUNCTIONS[name]["Environment"]["Variables"]


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def role_of(name: str) -> dict[str, Any]:
    role, attribute = FUNCTIONS[name]["Role"]["Fn::GetAtt"]
    assert attribute == "Arn"
    return RESOURCES[role]["Properties"]


def statements_of(name: str) -> list[dict[str, Any]]:
    return [statement for policy in role_of(name)["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


def resources_for(name: str, action: str) -> list[Any]:
    return [
        resource
        for statement in statements_of(name)
        if action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    ]


def arn_of(logical_id: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [logical_id, "Arn"]}


def default_of(parameter: str) -> int:
    return int(PARAMETERS[parameter]["Default"])


def references_in(node: object) -> Iterator[str]:
    """The names in every Ref, GetAtt and Sub of a part of the template."""
    if isinstance(node, list):
        for item in node:
            yield from references_in(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0]
            elif key == "Fn::Sub":
                text = value if isinstance(value, str) else value[0]
                yield from (part.split("}")[0].split(".")[0] for part in text.split("${")[1:])
            else:
                yield from references_in(value)


class TestFunctions:
    def test_each_folder_is_one_function(self) -> None:
        folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
        assert sorted(folder_of(function) for function in FUNCTIONS.values()) == sorted(folders)

    @every_function
    def test_its_handler_is_there_and_is_instrumented(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a watch on what Powertools is put around
        from trading import observability
        from trading.edge import http

        instrumented: list[object] = []
        genuine = observability.instrumented

        def watched(handler: observability.Handler) -> observability.Handler:
            instrumented.append(genuine(handler))
            return instrumented[-1]  # type: ignore[return-value]

        monkeypatch.setattr(observability, "instrumented", watched)
        monkeypatch.setattr(http, "instrumented", watched)

        # When the function is loaded as Lambda does
        assert FUNCTIONS[name]["Handler"] == "app.handler"
        handler = deployed_handler(folder_of(FUNCTIONS[name]))

        # Then its handler is one of those
        assert handler in instrumented

    @every_function
    def test_it_logs_json_to_a_group_of_its_own_that_forgets(self, name: str) -> None:
        logging = FUNCTIONS[name]["LoggingConfig"]
        group = RESOURCES[logging["LogGroup"]["Ref"]]
        assert logging["LogFormat"] == "JSON"
        # Metrics are lines of INFO: Lambda may keep none of them back.
        assert logging["ApplicationLogLevel"] == {"Fn::If": ["LogsDebug", "DEBUG", "INFO"]}
        assert group["Type"] == "AWS::Logs::LogGroup"
        assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}
        users = [other for other in FUNCTIONS if FUNCTIONS[other]["LoggingConfig"]["LogGroup"] == logging["LogGroup"]]
        assert users == [name]

    @every_function
    def test_it_runs_where_the_layer_was_built_for(self, name: str) -> None:
        layer = RESOURCES["TradingLayer"]
        assert FUNCTIONS[name]["Layers"] == [{"Ref": "TradingLayer"}]
        assert FUNCTIONS[name]["Runtime"] == layer["Metadata"]["BuildMethod"] == "python3.13"
        assert FUNCTIONS[name]["Architectures"] == [layer["Metadata"]["BuildArchitecture"]] == ["arm64"]

    def test_they_are_traced_which_takes_the_x_ray_sdk(self) -> None:
        shipped = (ROOT / "layers" / "trading" / "requirements.txt").read_text()
        assert {function["Tracing"] for function in FUNCTIONS.values()} == {"Active"}
        assert "aws-xray-sdk==" in shipped

    def test_only_the_layer_ships_libraries(self) -> None:
        assert list((ROOT / "functions").glob("*/requirements.txt")) == []

    @every_function
    def test_one_behind_the_http_api_answers_before_the_gateway_gives_up(self, name: str) -> None:
        if events_of(FUNCTIONS[name], "HttpApi"):
            assert FUNCTIONS[name]["Timeout"] < GATEWAY_SECONDS_MAX

    def test_an_order_has_ten_seconds(self) -> None:
        assert FUNCTIONS["ExecuteOrderFunction"]["Timeout"] == 10


class TestRoles:
    @every_function
    def test_no_two_functions_share_a_role(self, name: str) -> None:
        users = [other for other in FUNCTIONS if FUNCTIONS[other]["Role"] == FUNCTIONS[name]["Role"]]
        assert users == [name]
        policies = ["RuntimePolicy", *(["MetricsPolicy"] if name in METRICS_READERS else [])]
        assert role_of(name)["ManagedPolicyArns"] == [{"Ref": policy} for policy in policies]

    @every_function
    def test_its_role_names_actions_and_resources(self, name: str) -> None:
        for statement in statements_of(name):
            assert statement["Effect"] == "Allow"
            assert all("*" not in action for action in listed(statement["Action"]))
            for resource in listed(statement["Resource"]):
                text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
                # A connection has no name before it is there: below this API and stage each one may be meant.
                assert "*" not in text.removesuffix("/@connections/*")

    def test_what_names_no_resource_stands_in_policies_of_its_own_by_name(self) -> None:
        found = {
            name: [
                statement["Fn::If"][1] if "Fn::If" in statement else statement
                for statement in policy["PolicyDocument"]["Statement"]
            ]
            for name, policy in resources_of("AWS::IAM::ManagedPolicy").items()
        }
        named = {name: {statement["Sid"] for statement in statements} for name, statements in found.items()}
        assert named == UNBOUND_STATEMENTS
        statements = [statement for each in found.values() for statement in each]
        assert all("*" not in action for statement in statements for action in listed(statement["Action"]))

    @every_function
    def test_it_may_read_the_secrets_that_it_is_given_and_no_other(self, name: str) -> None:
        given = {
            reference
            for variable, value in environment_of(name).items()
            if variable.endswith("_SECRET")
            for reference in references_in(value)
        }
        readable = set(references_in(resources_for(name, "secretsmanager:GetSecretValue"))) - {"AWS::NoValue"}
        assert readable == given
        assert len([secret for secret in given if secret.endswith("DatabaseSecret")]) == 1

    @every_function
    def test_it_may_send_to_the_queues_that_it_is_given_and_to_its_failure_queue(self, name: str) -> None:
        given = {
            reference
            for variable, value in environment_of(name).items()
            if variable.endswith("_QUEUE_URL")
            for reference in references_in(value)
        }
        failures = set(references_in(FUNCTIONS[name].get("EventInvokeConfig", {})))
        assert set(references_in(resources_for(name, "sqs:SendMessage"))) == given | failures

    @every_function
    def test_it_may_receive_from_the_queues_that_start_it(self, name: str) -> None:
        sources = [event["Queue"] for event in events_of(FUNCTIONS[name], "SQS")]
        for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"):
            assert resources_for(name, action) == sources

    @every_function
    def test_it_manages_connections_of_this_api_when_it_is_told_where_they_are(self, name: str) -> None:
        managed = resources_for(name, "execute-api:ManageConnections")
        assert bool(managed) == ("CONNECTIONS_ENDPOINT" in environment_of(name))
        assert all(":${WebSocketApi}/realtime/" in resource["Fn::Sub"] for resource in managed)

    @every_function
    def test_it_writes_to_its_own_log_group(self, name: str) -> None:
        group = FUNCTIONS[name]["LoggingConfig"]["LogGroup"]["Ref"]
        assert resources_for(name, "logs:PutLogEvents") == [arn_of(group)]


class TestFailures:
    @every_function
    def test_a_scheduled_run_that_fails_leaves_a_message(self, name: str) -> None:
        function = FUNCTIONS[name]
        for schedule in events_of(function, "ScheduleV2"):
            assert schedule["ScheduleExpression"] in {"rate(1 minute)", "rate(5 minutes)"}
            assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
            assert schedule["DeadLetterConfig"] == {"Arn": arn_of("ScheduleDeadLetterQueue")}
            assert schedule["RetryPolicy"]["MaximumRetryAttempts"] <= 2
            # The scheduler's queue holds what Lambda did not take; what Lambda took and lost goes here.
            invoked = function["EventInvokeConfig"]
            assert invoked["MaximumRetryAttempts"] == 0
            assert invoked["DestinationConfig"]["OnFailure"] == {
                "Type": "SQS",
                "Destination": arn_of("ScheduleDeadLetterQueue"),
            }

    @every_function
    def test_a_message_that_keeps_failing_ends_in_a_dead_letter_queue(self, name: str) -> None:
        function = FUNCTIONS[name]
        for source in events_of(function, "SQS"):
            queue = RESOURCES[source["Queue"]["Fn::GetAtt"][0]]["Properties"]
            assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
            assert queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0] in RESOURCES
            assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5
            assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]

    @every_function
    def test_every_way_to_start_it_is_known_here(self, name: str) -> None:
        kinds = {event["Type"] for event in FUNCTIONS[name].get("Events", {}).values()}
        assert kinds <= {"HttpApi", "ScheduleV2", "SQS"}
        assert kinds or name == "RealtimeFunction"

    def test_dead_letters_are_kept_for_as_long_as_can_be(self) -> None:
        dead = {name: queue for name, queue in resources_of("AWS::SQS::Queue").items() if "DeadLetter" in name}
        assert len(dead) == 6
        assert all(queue["MessageRetentionPeriod"] == 1_209_600 for queue in dead.values())

    def test_alerts_watch_every_function_but_their_own_and_every_dead_letter_queue(self) -> None:
        # Their own is watched by alarms: it cannot name itself in its environment.
        watched = environment_of("EvaluateAlertsFunction")
        assert set(references_in(watched["ALERT_FUNCTIONS"])) == set(FUNCTIONS) - {"EvaluateAlertsFunction"}
        dead = {name for name in resources_of("AWS::SQS::Queue") if "DeadLetter" in name}
        assert set(references_in(watched["ALERT_DEAD_LETTER_QUEUES"])) == dead

    def test_queues_are_encrypted(self) -> None:
        assert all(queue["SqsManagedSseEnabled"] for queue in resources_of("AWS::SQS::Queue").values())


class TestLimits:
    @every_function
    def test_its_concurrency_is_limited_by_a_parameter_of_its_own(self, name: str) -> None:
        expected = name.removesuffix("Function") + CONCURRENCY_SUFFIX
        assert FUNCTIONS[name]["ReservedConcurrentExecutions"] == {"Ref": expected}
        assert default_of(expected) >= 1

    @pytest.mark.parametrize("stage", ["default", "dev", "staging", "prod"])
    def test_the_connections_add_up_to_what_the_database_grants(self, stage: str) -> None:
        # One connection an execution environment.
        values = values_of(stage)
        needed = sum(int(values[reference["Ref"]]) for reference in concurrency_of_functions())
        # An alert may raise it for a while.
        raised = int(values["AlertConcurrencyMax"]) - int(values["ExecuteOrderConcurrency"])
        assert raised > 0
        assert needed + raised <= int(values["DatabaseConnectionsMax"])

    @pytest.mark.parametrize("stage", ["default", "dev", "staging", "prod"])
    @every_function
    def test_a_queue_leaves_room_for_what_else_starts_the_function(self, name: str, stage: str) -> None:
        values = values_of(stage)
        for source in events_of(FUNCTIONS[name], "SQS"):
            taken = int(values[source["ScalingConfig"]["MaximumConcurrency"]["Ref"]])
            assert 2 <= taken < int(values[FUNCTIONS[name]["ReservedConcurrentExecutions"]["Ref"]])

    def test_a_lingering_relay_returns_in_time(self) -> None:
        linger = PARAMETERS["RelayLingerSeconds"]["MaxValue"]
        assert 2 * linger <= FUNCTIONS["ProcessUpdatesFunction"]["Timeout"]

    def test_the_next_price_stream_starts_before_this_one_ends(self) -> None:
        # a minute, and the minute to which the scheduler is exact
        assert FUNCTIONS["StreamPricesFunction"]["Timeout"] - REMAINING_MS_MIN / 1000 > 60 + 60
        assert default_of("StreamPricesConcurrency") == 2


# What each piece of the layer reads from the environment, by the name that a function's app.py imports.
TOKENS = {
    "JWT_SECRET",
    "JWT_ALGORITHM",
    "JWT_JWKS_URL",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "JWT_CLAIM_NAMES",
    "ALLOW_UNMETERED_TIER",
}
REDIS = {"REDIS_SECRET", "REDIS_TIMEOUT_MS"}
DATABASE = {"DATABASE_SECRET", "DATABASE_TIMEOUT_MS"}
ADDRESS_LIMIT = {"IP_REQUESTS_PER_MINUTE"} | DATABASE | REDIS
# The gate compares these where a request changes something.
READ_BY_CHANGES = {"CSRF_SECRET", "API_CLIENT_IDS"}
READ_BY = {
    "admit": TOKENS | ADDRESS_LIMIT,
    "admit_address": ADDRESS_LIMIT,
    "admit_change": TOKENS | ADDRESS_LIMIT | READ_BY_CHANGES | {"RELAY_QUEUE_URL", "IDEMPOTENCY_KEY_DAYS"},
    "admit_connection": ADDRESS_LIMIT,
    "admit_message": DATABASE | REDIS,
    "authenticator": TOKENS,
    "cache": REDIS,
    "csrf_secret": {"CSRF_SECRET"},
    "database": DATABASE,
    "channel": {
        "ALERT_SINK",
        "ALERT_SLACK_WEBHOOK_SECRET",
        "ALERT_PAGER_WEBHOOK_SECRET",
        "ALERT_EMAIL_FROM",
        "ALERT_EMAIL_TO",
        "ALERT_TOPICS",
    },
    "check_means": {"ALERT_CONCURRENCY_MAX", "QUOTE_PROVIDER", "QUOTE_STANDBY_PROVIDER", "QUOTE_REPLAY_FILE"},
    "outage_memory": REDIS,
    "make_provider": {
        "QUOTE_PROVIDER",
        "QUOTE_STANDBY_PROVIDER",
        "QUOTE_REPLAY_FILE",
        "QUOTE_REPLAY_SPEED",
        "QUOTE_REPLAY_START",
        "QUOTE_SEED",
        "QUOTES_PER_SECOND",
    },
    "key_terms": {"IDEMPOTENCY_KEY_DAYS"},
    "relay_waker": {"RELAY_QUEUE_URL"},
    "notify_relay": {"RELAY_QUEUE_URL"},
    "notify_relay_unless_awake": {"RELAY_QUEUE_URL"},
    "start_routing": {"ROUTE_QUEUE_URL"},
    "start_triggers": {"TRIGGER_QUEUE_URL"},
    "watch_holders": {"RISK_QUEUE_URL"},
    "broker": {"VENUES", "ALLOW_MOCK_VENUE", "VENUE_TIMEOUT_MS", "MOCK_LATENCY_MS", "MOCK_FAILURE_PERCENT"},
    "send_connection_task": {"AUTHENTICATION_TIMEOUT_QUEUE_URL"},
    "send_price_watch": {"AUTHENTICATION_TIMEOUT_QUEUE_URL"},
    "sockets": {"CONNECTIONS_ENDPOINT"},
}
# What the settings judge a variable by.
READ_WITH = {"VENUES": {"ALLOW_MOCK_VENUE"}}


def read_by(folder: str) -> set[str]:
    """The variables that the imports and settings of a function's app.py stand for."""
    tree = ast.parse((ROOT / "functions" / folder / "app.py").read_text())
    read: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=names):
                read |= {variable for name in names for variable in READ_BY.get(name.name, set())}
            case ast.keyword(arg="state_changing", value=ast.Constant(value=True)):
                read |= READ_BY_CHANGES
            case ast.Attribute(value=ast.Call(func=ast.Name(id="settings")), attr=field):
                variable = Settings.model_fields[field].alias or field
                read |= {variable} | READ_WITH.get(variable, set())
    return read


class TestEnvironment:
    @every_function
    def test_it_is_given_what_it_reads_and_no_secret_or_address_besides(self, name: str) -> None:
        expected = read_by(folder_of(FUNCTIONS[name]))
        given = set(environment_of(name))
        judged = set().union(*READ_BY.values(), READ_BY_CHANGES)
        assert given & judged == expected & judged
        everywhere = set(TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]) | {"POWERTOOLS_SERVICE_NAME"}
        assert expected - judged <= given
        assert given - judged - expected <= everywhere

    @every_function
    def test_its_database_is_given_up_before_lambda_gives_it_up(self, name: str) -> None:
        milliseconds = int(environment_of(name)["DATABASE_TIMEOUT_MS"])
        reconnecting = min(CONNECT_SECONDS_MAX * 1000, milliseconds)
        assert milliseconds + reconnecting < FUNCTIONS[name]["Timeout"] * 1000

    def test_a_caller_of_prices_has_time_to_wait_for_another_and_then_to_read_by_itself(self) -> None:
        milliseconds = int(environment_of("GetPriceFunction")["DATABASE_TIMEOUT_MS"])
        reconnecting = min(CONNECT_SECONDS_MAX * 1000, milliseconds)
        waiting = WAIT_SECONDS * 1000 + default_of("RedisTimeoutMs")
        assert waiting + reconnecting + milliseconds < FUNCTIONS["GetPriceFunction"]["Timeout"] * 1000

    @every_function
    def test_it_is_given_nothing_that_nobody_reads(self, name: str) -> None:
        known = {field.alias for field in Settings.model_fields.values()}
        assert set(environment_of(name)) <= known

    def test_every_setting_can_be_set(self) -> None:
        known = {field.alias for field in Settings.model_fields.values()}
        assert known == {variable for name in FUNCTIONS for variable in environment_of(name)}

    @every_function
    def test_the_defaults_are_accepted(self, name: str) -> None:
        # Given the template's defaults for what is a parameter with one
        variables = {
            variable: str(PARAMETERS[value["Ref"]]["Default"]) if isinstance(value, dict) else value
            for variable, value in environment_of(name).items()
            if isinstance(value, str) or "Default" in PARAMETERS.get(value.get("Ref", ""), {})
        }
        # When / then
        settings = Settings.from_environment(variables)
        assert settings.service == folder_of(FUNCTIONS[name]).replace("_", "-")

    @pytest.mark.parametrize(
        ("parameter", "variable", "right", "wrong"),
        [
            (
                "Venues",
                "VENUES",
                ["", "paper:paper", "paper:paper,b_2:paper"],
                ["paper", "paper=paper", "x:nobody", "internal:paper", "a:paper,", "a:paper,internal:paper"],
            ),
            (
                "JwtClaimNames",
                "JWT_CLAIM_NAMES",
                ["{}", *(f'{{"{claim}": "its:{claim}"}}' for claim in CLAIMS), '{"sub":"id", "tier": "t"}'],
                ["{", "[]", '{"exp": "x"}', '{"tier": 5}', '{"sub": "id",}', '{"sub": "id" "tier": "t"}'],
            ),
            (
                "AlertSink",
                "ALERT_SINK",
                ["", "log", "http://127.0.0.1:9000/", "http://[::1]:9000/"],
                ["LOG", "https://127.0.0.1:9000/", "http://alerts.example.com/"],
            ),
        ],
    )
    def test_a_deployment_refuses_what_its_functions_would(
        self, parameter: str, variable: str, right: list[str], wrong: list[str]
    ) -> None:
        pattern = PARAMETERS[parameter]["AllowedPattern"]
        for value in right:
            assert re.fullmatch(pattern, value), value
            Settings.from_environment({variable: value})
        for value in wrong:
            assert not re.fullmatch(pattern, value), value
            with pytest.raises(ConfigurationError, match=variable):
                Settings.from_environment({variable: value})

    @pytest.mark.parametrize(
        ("parameter", "right", "wrong"),
        [
            ("JwtAudience", ["a", "a,b", "a, b"], ["", "a,", "a b", "a,,b"]),
            ("ApiClientIds", ["", "one", "one, two"], [",", "one,", "one two"]),
            ("AlertEmailTo", ["", "a@b.example", "a@b.example,c@d.example"], ["a", "a@b.example c@d.example"]),
        ],
    )
    def test_a_list_has_commas_between(self, parameter: str, right: list[str], wrong: list[str]) -> None:
        pattern = PARAMETERS[parameter]["AllowedPattern"]
        assert [value for value in right + wrong if re.fullmatch(pattern, value)] == right

    def test_stages_of_one_account_measure_apart(self) -> None:
        shared = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
        assert shared["POWERTOOLS_METRICS_NAMESPACE"] == {"Ref": "AWS::StackName"}

    def test_every_parameter_is_used(self) -> None:
        used = set(references_in([RESOURCES, TEMPLATE["Globals"], TEMPLATE["Conditions"], TEMPLATE["Outputs"]]))
        assert set(PARAMETERS) <= used

    def test_secrets_are_references_in_full(self) -> None:
        # A role that names the ARN without the six characters at its end may read nothing.
        whole = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:trading-dev/function_trader"
        secrets = {name: value for name, value in PARAMETERS.items() if name.endswith("Secret")}
        assert len(secrets) == 17
        for value in secrets.values():
            assert re.match(value["AllowedPattern"], f"{whole}-AbC123")
            assert not re.match(value["AllowedPattern"], whole)

    @every_function
    def test_its_environment_fits_lambda(self, name: str) -> None:
        written = {variable: deployed_text(value) for variable, value in environment_of(name).items()}
        assert sum(len(variable) + len(text) for variable, text in written.items()) < ENVIRONMENT_BYTES_MAX


class TestHttpApi:
    @every_function
    def test_its_routes_are_the_ones_that_it_serves(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given the routes that API Gateway sends to the function
        routes = {f"{event['Method']} {event['Path']}" for event in events_of(FUNCTIONS[name], "HttpApi")}
        # When the function hands its own to the shared frame
        from trading.edge import http

        served: set[str] = set()
        genuine = http.http_handler

        def watched(routes: Mapping[str, http.Route]) -> http.Handler:
            served.update(routes)
            return genuine(routes)

        monkeypatch.setattr(http, "http_handler", watched)
        deployed_handler(folder_of(FUNCTIONS[name]))
        # Then they are the same
        assert served == routes

    def test_every_route_has_one_function(self) -> None:
        routes = [
            (event["Method"], event["Path"])
            for function in FUNCTIONS.values()
            for event in events_of(function, "HttpApi")
        ]
        assert len(routes) == len(set(routes)) > 0

    @every_function
    def test_its_policy_has_room_for_all_its_routes(self, name: str) -> None:
        # A route is a statement of the function's own policy.
        paths = [event["Path"] for event in events_of(FUNCTIONS[name], "HttpApi")]
        assert sum(PERMISSION_BYTES + len(path) for path in paths) < POLICY_BYTES_MAX

    def test_alerts_count_the_requests_of_all_routes_that_take_orders(self) -> None:
        taken = events_of(FUNCTIONS["ExecuteOrderFunction"], "HttpApi")
        assert sorted(ORDER_ROUTES) == sorted(f"{event['Method']} {event['Path']}" for event in taken)

    def test_a_warning_of_its_import_stops_no_deployment(self) -> None:
        # SAM declares path parameters without a schema, which the import warns of.
        assert "FailOnWarnings" not in RESOURCES["HttpApi"]["Properties"]

    def test_every_route_belongs_to_the_api_and_sends_payload_two(self) -> None:
        for function in FUNCTIONS.values():
            for event in events_of(function, "HttpApi"):
                assert event["ApiId"] == {"Ref": "HttpApi"}
                assert event["PayloadFormatVersion"] == "2.0"

    def test_a_front_end_may_send_and_read_what_it_needs(self) -> None:
        cors = RESOURCES["HttpApi"]["Properties"]["CorsConfiguration"]
        methods = {event["Method"] for function in FUNCTIONS.values() for event in events_of(function, "HttpApi")}
        assert cors["AllowOrigins"] == {"Ref": "AllowedOrigins"}
        assert set(cors["AllowHeaders"]) == FRONT_END_HEADERS
        assert set(cors["ExposeHeaders"]) == EXPOSED_HEADERS
        assert set(cors["AllowMethods"]) == methods
        assert "AllowCredentials" not in cors

    def test_its_access_log_is_json_and_carries_no_token(self) -> None:
        api = RESOURCES["HttpApi"]["Properties"]
        socket_api = RESOURCES["WebSocketApi"]["Properties"]["AccessLogSettings"]["Fn::If"][1]
        for logged in (api["AccessLogSettings"], socket_api):
            assert RESOURCES[logged["DestinationArn"]["Fn::GetAtt"][0]]["Type"] == "AWS::Logs::LogGroup"
            assert logged["Format"].startswith("{")
            for word in ("query", "authorizer", "header", "protocol"):
                assert word not in logged["Format"].lower()
        assert api["StageName"] == "$default"


class TestWebSocketApi:
    def test_its_routes_go_to_the_realtime_function(self) -> None:
        api = RESOURCES["WebSocketApi"]["Properties"]
        assert api["RouteSelectionExpression"] == "$request.body.type"
        assert api["StageName"] == "realtime"
        assert set(api["Routes"]) == SOCKET_ROUTES
        assert all(route == {"FunctionArn": arn_of("RealtimeFunction")} for route in api["Routes"].values())

    def test_messages_are_never_traced(self) -> None:
        assert RESOURCES["WebSocketApi"]["Properties"]["DefaultRouteSettings"]["DataTraceEnabled"] is False


class TestStages:
    @pytest.mark.parametrize("stage", ["dev", "staging", "prod"])
    def test_it_says_which_stage_it_is(self, stage: str) -> None:
        deploy = STAGES[stage]["deploy"]["parameters"]
        assert values_of(stage)["Stage"] == stage
        assert deploy["stack_name"] == f"trading-{stage}"
        assert deploy["capabilities"] == "CAPABILITY_IAM"

    @pytest.mark.parametrize("stage", ["dev", "staging", "prod"])
    def test_it_sets_parameters_that_there_are_to_values_that_are_allowed(self, stage: str) -> None:
        for name, value in overrides_of(stage).items():
            parameter = PARAMETERS[name]
            assert str(value) in [str(allowed) for allowed in parameter.get("AllowedValues", [value])]
            assert int(value) >= parameter["MinValue"] if "MinValue" in parameter else True

    @pytest.mark.parametrize("stage", ["dev", "staging", "prod"])
    def test_what_belongs_to_its_account_stands_in_a_file_of_its_own_that_has_the_last_word(self, stage: str) -> None:
        # The last one wins.
        assert STAGES[stage]["deploy"]["parameters"]["parameter_overrides"][-1] == f"file://deployment/{stage}.yaml"

    def test_the_example_of_that_file_gives_all_that_is_needed_and_nothing_that_there_is_not(self) -> None:
        example: dict[str, Any] = yaml.safe_load((ROOT / "deployment" / "example.yaml").read_text())
        needed = {name for name, parameter in PARAMETERS.items() if "Default" not in parameter}
        assert needed <= set(example) <= set(PARAMETERS)
        for name, value in example.items():
            assert re.fullmatch(PARAMETERS[name].get("AllowedPattern", ".*"), str(value)), name
        assert len({value for name, value in example.items() if name.endswith("Secret")}) == 14

    def test_the_way_from_zero_tells_of_each_login_secret_and_reservation(self) -> None:
        told = (ROOT / "docs" / "deployment.md").read_text()
        named = {f"function_{name}" for name in re.findall(r"\bfunction_(\w+)", told)}
        assert named == {role for role in LOGIN_ROLES if role.startswith("function_")}
        for stage in ("dev", "staging", "prod"):
            values = values_of(stage)
            assert f"{sum(int(values[each['Ref']]) for each in concurrency_of_functions())} in {stage}" in told

    @pytest.mark.parametrize("stage", ["default", "dev", "staging", "prod"])
    def test_nobody_is_freed_from_the_rate_limit(self, stage: str) -> None:
        assert values_of(stage)["AllowUnmeteredTier"] == "false"

    def test_production_asks_before_it_changes_anything(self) -> None:
        assert STAGES["prod"]["deploy"]["parameters"]["confirm_changeset"] is True
        assert values_of("prod")["LogLevel"] == "INFO"

    def test_production_is_guarded_by_rules(self) -> None:
        guarded = set(references_in(TEMPLATE["Rules"]["ProductionIsGuarded"]))
        assert guarded == {
            "Stage",
            "JwtAlgorithm",
            "AllowedOrigins",
            "LogLevel",
            "ReleaseVersion",
            "AllowUnmeteredTier",
            "AllowMockVenue",
            "AlertSink",
        }


def deployed_text(value: object) -> str:
    """What a variable comes to in the stack with the longest name, each reference at its longest."""
    match value:
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([^}]+)\}", lambda found: deployed_text({"Ref": found[1]}), text)
        case {"Ref": str(name)} if name in PARAMETERS:
            return "x" * SECRET_BYTES if name.endswith("Secret") else str(PARAMETERS[name].get("Default", "x" * 100))
        case {"Ref": str(name)}:
            resource, _, attribute = name.partition(".")
            addressed = not attribute and RESOURCES.get(resource, {}).get("Type") in ADDRESSED
            return "x" * ADDRESS_BYTES * addressed + f"trading-staging-{resource}-AbCdEfGhIjKlM"
        case _:
            return str(value)


def overrides_of(stage: str) -> dict[str, str]:
    if stage == "default":
        return {}
    lines = STAGES[stage]["deploy"]["parameters"]["parameter_overrides"]
    return dict(line.split("=", 1) for line in lines if not line.startswith("file://"))


def values_of(stage: str) -> dict[str, str]:
    """Parameter values of a stage as far as the project sets them."""
    defaults = {name: str(value["Default"]) for name, value in PARAMETERS.items() if "Default" in value}
    return defaults | overrides_of(stage)


def concurrency_of_functions() -> list[dict[str, str]]:
    return [function["ReservedConcurrentExecutions"] for function in FUNCTIONS.values()]
