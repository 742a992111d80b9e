"""Does what the body's `do` says, by default answers with its event, context and environment."""

import base64
import json
import os
import time
from pathlib import Path
from typing import Any


def handler(event: dict[str, Any], context: Any) -> Any:
    text = event.get("body", "")
    asked = json.loads(text) if text.startswith("{") else {}
    match asked.get("do"):
        case "sleep":
            if "flag" in asked:
                Path(asked["flag"]).write_text(str(os.getpid()))
            time.sleep(asked["seconds"])
            return {"statusCode": 200, "body": str(os.getpid())}
        case "exit":
            os._exit(3)
        case "raise":
            raise ValueError(asked["message"])
        case "return":
            return asked["value"]
        case "nan":
            return {"statusCode": 200, "body": "x", "number": float("nan")}
        case "big":
            return {"statusCode": 200, "body": "x" * asked["bytes"]}
        case "binary":
            body = base64.b64encode(bytes(range(256))).decode()
            return {"statusCode": 200, "headers": {"Content-Type": "image/png"}, "body": body, "isBase64Encoded": True}
    answer = {
        "event": event,
        "pid": os.getpid(),
        "environment": dict(os.environ),
        "cwd": str(Path.cwd()),
        "remaining_ms": context.get_remaining_time_in_millis(),
        "function": context.function_name,
        "request_id": context.aws_request_id,
    }
    return {
        "statusCode": 201,
        "headers": {"Content-Type": "application/json", "X-Own": 7, "Access-Control-Allow-Origin": "*"},
        "cookies": ["a=1", "b=2"],
        "body": json.dumps(answer),
    }
