"""Reports each record, and fails those that ask for it."""

from typing import Any

from shared import report  # pyright: ignore[reportMissingImports]


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failed: list[dict[str, str]] = []
    for record in event["Records"]:
        report(
            body=record["body"],
            receives=int(record["attributes"]["ApproximateReceiveCount"]),
            batch=len(event["Records"]),
            source=record["eventSourceARN"],
            colour=record["messageAttributes"].get("colour", {}).get("stringValue"),
        )
        if record["body"].startswith("fail"):
            failed.append({"itemIdentifier": record["messageId"]})
        if record["body"] == "crash":
            raise ValueError("crash")
    return {"batchItemFailures": failed}
