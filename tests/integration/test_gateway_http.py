"""HTTP through the gateway to real workers, and every way in which a worker can fail it."""

import os
import signal
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.kit.gateway import STACK, RunningGateway, eventually, running_gateway, start_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def http(gateway: RunningGateway) -> Generator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=20) as client:
        yield client


def ask(http: httpx.Client, **what: Any) -> httpx.Response:
    return http.post("/echo", json=what)


def test_a_request_becomes_an_event_and_the_result_a_response(http: httpx.Client) -> None:
    # given a request with repeated headers, cookies and parameters
    headers = [("X-Many", "1"), ("X-Many", "2"), ("Cookie", "a=1; b=2"), ("Content-Type", "text/plain")]

    # when it is sent
    answer = http.post("/echo?q=1&q=a%20b&empty=", headers=headers, content="grüße")

    # then the function saw it as payload format 2.0
    event = answer.json()["event"]
    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["routeKey"] == "POST /echo"
    assert event["rawQueryString"] == "q=1&q=a%20b&empty="
    assert event["queryStringParameters"] == {"q": "1,a b", "empty": ""}
    assert event["headers"]["x-many"] == "1,2"
    assert "cookie" not in event["headers"]
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["body"] == "grüße"
    assert event["isBase64Encoded"] is False
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["stage"] == "$default"

    # and its result came back whole
    assert answer.status_code == 201
    assert answer.headers["x-own"] == "7"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["apigw-requestid"] == event["requestContext"]["requestId"]


def test_bytes_travel_both_ways(http: httpx.Client) -> None:
    sent = http.post("/echo", headers={"Content-Type": "application/octet-stream"}, content=b"\x00\xff")
    received = ask(http, do="binary")

    assert sent.json()["event"]["isBase64Encoded"] is True
    assert sent.json()["event"]["body"] == "AP8="
    assert received.content == bytes(range(256))
    assert received.headers["content-type"] == "image/png"


def test_a_worker_has_lambdas_environment_and_the_templates_but_not_its_parents(
    http: httpx.Client, gateway: RunningGateway
) -> None:
    told = http.post("/echo", content="x").json()
    environment = told["environment"]

    assert environment["STAGE"] == "local"
    assert environment["TOKEN"] == "the-token"
    assert environment["JOINED"] == "a-y-here"
    assert "ABSENT" not in environment
    assert environment["CALLBACK"] == f"{gateway.aws['AWS_ENDPOINT_URL']}/realtime"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == told["function"] == "trading-local-EchoFunction"
    assert environment["AWS_ACCESS_KEY_ID"] == gateway.aws["AWS_ACCESS_KEY_ID"]
    assert not {"HOME", "USER", "VIRTUAL_ENV"} & set(environment)
    assert told["cwd"].endswith("gateway_stack/functions/echo")
    assert 0 < told["remaining_ms"] <= 1000


@pytest.mark.parametrize(
    ("method", "path", "route", "parameters"),
    [
        ("GET", "/things/own", "GET /things/own", None),
        ("GET", "/things/a%20b", "GET /things/{id}", {"id": "a b"}),
        ("DELETE", "/files/a/b", "ANY /files/{path+}", {"path": "a/b"}),
    ],
)
def test_the_most_specific_route_answers(
    http: httpx.Client, method: str, path: str, route: str, parameters: dict[str, str] | None
) -> None:
    event = http.request(method, path).json()["event"]

    assert event["routeKey"] == route
    assert event.get("pathParameters") == parameters


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("GET", "/echo"), ("GET", "/things/")])
def test_what_no_route_matches_is_404(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)

    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})


def test_a_body_above_10_mb_is_413_and_headers_above_10_kb_are_431(http: httpx.Client) -> None:
    large = http.post("/echo", content=b"x" * (10 * 1024 * 1024 + 1))
    chunked = http.post("/echo", content=(b"x" * 1024 * 1024 for _ in range(11)))
    long = http.get("/things/1", headers={"X-Long": "x" * 10_240})

    assert [large.status_code, chunked.status_code, long.status_code] == [413, 413, 431]


def test_cors_is_answered_from_the_template(http: httpx.Client) -> None:
    # given an allowed and a strange origin
    asked = {"Access-Control-Request-Method": "POST"}
    allowed, strange = {"Origin": "https://front.example"}, {"Origin": "https://evil.example"}

    # when each asks beforehand, and posts
    preflight = http.options("/echo", headers=asked | allowed)
    refused = http.options("/echo", headers=asked | strange)
    posted = http.post("/echo", content="x", headers=allowed)
    stranger = http.post("/echo", content="x", headers=strange)

    # then only the allowed one is told so, and the function's own header never counts
    assert preflight.status_code == refused.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://front.example"
    assert preflight.headers["access-control-allow-methods"] == "GET,POST"
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-csrf-token"
    assert preflight.headers["access-control-max-age"] == "600"
    assert posted.headers["access-control-allow-origin"] == "https://front.example"
    assert posted.headers["access-control-expose-headers"] == "retry-after"
    assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize(
    "what",
    [
        {"do": "raise", "message": "secret"},
        {"do": "nan"},
        {"do": "return", "value": {"statusCode": "many"}},
        {"do": "return", "value": {"statusCode": 200, "body": {"no": "text"}}},
        {"do": "return", "value": {"statusCode": 200, "headers": {"X": "a\r\nb: c"}}},
        {"do": "return", "value": {"statusCode": 200, "body": "*", "isBase64Encoded": True}},
        {"do": "big", "bytes": 6 * 1024 * 1024},
    ],
)
def test_a_fault_or_a_malformed_result_is_500_and_tells_nothing(http: httpx.Client, what: dict[str, Any]) -> None:
    answer = ask(http, **what)

    assert (answer.status_code, answer.json()) == (500, {"message": "Internal Server Error"})
    assert http.post("/echo", content="x").status_code == 201


def test_a_result_without_a_status_code_is_a_200_with_that_json(http: httpx.Client) -> None:
    answer = ask(http, do="return", value={"some": "thing"})

    assert (answer.status_code, answer.json()) == (200, {"some": "thing"})


def test_a_worker_killed_in_mid_invocation_is_502_and_the_next_call_works(
    http: httpx.Client, gateway: RunningGateway, tmp_path: Path
) -> None:
    # given a request that a worker has begun
    flag = tmp_path / "begun"
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(ask, http, do="sleep", seconds=0.9, flag=str(flag))
        pid = int(eventually(lambda: flag.exists() and flag.read_text(), what="the invocation"))

        # when that worker is killed
        os.kill(pid, signal.SIGKILL)
        answer = request.result()

    # then its request failed and another worker serves the next
    assert answer.status_code == 502
    following = http.post("/echo", content="x")
    assert following.status_code == 201
    assert following.json()["pid"] != pid


def test_an_idle_worker_that_is_killed_swallows_no_request(http: httpx.Client, gateway: RunningGateway) -> None:
    for _ in range(15):
        # given a warm worker that polls
        pid = http.post("/echo", content="x").json()["pid"]

        # when it is killed, its death not yet told to the gateway, and a request follows at once
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not psutil.pid_exists(pid) or _is_dead(pid), what="its death")
        answer = http.post("/echo", content="x")

        # then another worker answers it
        assert answer.status_code == 201
        assert answer.json()["pid"] != pid


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return True


def test_a_handler_beyond_its_timeout_is_504_and_its_worker_is_killed(http: httpx.Client, tmp_path: Path) -> None:
    # given a function with a time limit of one second
    flag = tmp_path / "begun"

    # when it takes longer
    answer = ask(http, do="sleep", seconds=60, flag=str(flag))

    # then the caller is told and the worker does not go on
    assert (answer.status_code, answer.json()) == (504, {"message": "Task timed out after 1.00 seconds"})
    pid = int(flag.read_text())
    eventually(lambda: not psutil.pid_exists(pid), what="the worker's end")
    assert http.post("/echo", content="x").status_code == 201


@pytest.mark.parametrize("what", ["/leaving", "exit"])
def test_a_worker_that_leaves_without_an_answer_is_502(http: httpx.Client, what: str) -> None:
    for _ in range(2):
        answer = http.get(what) if what.startswith("/") else ask(http, do=what)
        assert (answer.status_code, answer.json()) == (502, {"message": "Bad Gateway"})


def test_a_function_that_cannot_start_is_500_each_time_and_its_log_says_why(
    http: httpx.Client, gateway: RunningGateway
) -> None:
    answers = [http.get("/broken") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert "No module named 'no_such_module_anywhere'" in (gateway.state / "logs" / "broken.log").read_text()
    assert gateway.workers("broken") == []


def test_no_more_workers_run_than_the_function_may_have_and_the_rest_wait(
    http: httpx.Client, gateway: RunningGateway
) -> None:
    # given a function with two workers at most, when eight slow requests come at once
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(http, do="sleep", seconds=0.1), range(8)))

    # then two processes answered them all
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.text for answer in answers}) == 2
    assert len(gateway.workers("echo")) == 2


def test_a_request_that_gets_no_answer_in_the_apis_time_is_503(http: httpx.Client) -> None:
    # given both workers of a function at work for longer than the API waits
    with ThreadPoolExecutor(3) as pool:
        requests = [pool.submit(http.post, "/hurried", json={"do": "sleep", "seconds": 0.9}) for _ in range(3)]

        # when three requests want them, then all are told, also the one that only waited
        answers = [request.result() for request in requests]

    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].json() == {"message": "Service Unavailable"}
    assert ask(http, do="return", value={"statusCode": 200}).status_code == 200


def test_each_worker_is_in_a_session_of_its_own(http: httpx.Client, gateway: RunningGateway) -> None:
    pid = http.post("/echo", content="x").json()["pid"]

    assert os.getsid(pid) == pid


def test_the_access_log_has_the_request_but_no_query_string(http: httpx.Client, gateway: RunningGateway) -> None:
    http.get("/things/logged?token=secret")

    log = gateway.state / "logs" / "access.log"
    eventually(lambda: "/things/logged" in log.read_text(), what="the log line")
    assert "secret" not in log.read_text()


def test_calls_to_aws_without_the_gateways_key_are_refused(gateway: RunningGateway) -> None:
    for url in (gateway.url, gateway.aws["AWS_ENDPOINT_URL"]):
        assert httpx.get(f"{url}/realtime/@connections/x").status_code == 403
    target = {"X-Amz-Target": "AmazonSQS.PurgeQueue"}
    assert httpx.post(gateway.aws["AWS_ENDPOINT_URL"], headers=target, json={}).status_code == 403


def test_an_aws_service_that_is_not_served_is_refused_here(gateway: RunningGateway) -> None:
    from botocore.exceptions import ClientError

    s3 = gateway.client("s3")
    with pytest.raises(ClientError) as refused:
        s3.list_buckets()
    s3.close()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_it_is_ready_when_it_says_so(http: httpx.Client, gateway: RunningGateway) -> None:
    assert http.get("/_local/ready").json() == {"status": "ready", "pid": gateway.process.pid}


def test_a_stop_lets_a_request_end_and_leaves_no_process(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "state") as gateway, ThreadPoolExecutor(1) as pool:
        # given a request under way
        flag = tmp_path / "begun"
        body = {"do": "sleep", "seconds": 0.8, "flag": str(flag)}
        request = pool.submit(httpx.post, f"{gateway.url}/echo", json=body, timeout=20)
        eventually(flag.exists, what="the invocation")
        workers = [child.pid for child in psutil.Process(gateway.process.pid).children()]

        # when the gateway is asked to stop
        gateway.stop()

        # then the request got its answer, and nothing is left
        assert request.result().status_code == 200
        assert gateway.process.returncode == 0
        assert not any(psutil.pid_exists(pid) for pid in workers)


def test_workers_die_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "state") as gateway:
        # given warm workers
        pid = httpx.post(f"{gateway.url}/echo", content="x", timeout=20).json()["pid"]

        # when the gateway is killed outright
        gateway.process.kill()

        # then its worker ends too
        eventually(lambda: _is_dead(pid), what="the worker's end")


def test_a_port_that_is_taken_stops_the_start_in_one_line(gateway: RunningGateway, tmp_path: Path) -> None:
    port = int(gateway.url.rpartition(":")[2])

    process = start_gateway(tmp_path, port=port)
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 1
    assert output == f"Port {port} is in use: stop what holds it, or choose another with PORT=.\n"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("!GetAZs ''", "Fn::GetAZs"),
        ("!Ref Nothing", "Nothing is neither a parameter nor a resource"),
        ("!GetAtt HttpApi.Colour", "HttpApi.Colour"),
    ],
)
def test_what_the_gateway_cannot_evaluate_stops_the_start_by_name(tmp_path: Path, wrong: str, said: str) -> None:
    # given a template with a value that has no meaning here
    template = tmp_path / "template.yaml"
    folder = STACK.parent
    text = STACK.read_text().replace("TOKEN: !Ref Token", f"TOKEN: {wrong}")
    template.write_text(
        text.replace("CodeUri: ", f"CodeUri: {folder}/").replace("ContentUri: ", f"ContentUri: {folder}/")
    )

    # when the gateway is started
    process = start_gateway(tmp_path / "state", template=template)
    output, _ = process.communicate(timeout=20)

    # then it does not start, and says what it is
    assert process.returncode == 1
    assert said in output
    assert output.count("\n") == 1
