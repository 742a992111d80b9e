"""Logs that cannot fill the disk."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOG_BYTES_MAX = 20 * 1024 * 1024


class BoundedLog:
    """A file that workers append to; `trim` moves it to `.1` and starts anew when it has grown over its limit."""

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.path = path
        self._bytes_max = bytes_max
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def line(self, message: str) -> None:
        """Append a line of the gateway's own, with the time."""
        with self.path.open("a") as handle:
            handle.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {message}\n")

    def trim(self) -> None:
        """Copy and cut a file that is too long: workers keep it open, and append wherever its end is."""
        if self.path.stat().st_size > self._bytes_max:
            shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
            os.truncate(self.path, 0)


class AccessLog:
    """One JSON line a request, written in batches. No query string and no header: neither may bring a token here."""

    def __init__(self, path: Path) -> None:
        self._log = BoundedLog(path)
        self._lines: list[str] = []

    def write(self, **fields: Any) -> None:
        """Keep a line for the next `flush`."""
        self._lines.append(json.dumps(fields, separators=(",", ":")))

    def flush(self) -> None:
        """Append the lines kept, within the file's limit."""
        if self._lines:
            with self._log.path.open("a") as handle:
                handle.write("\n".join(self._lines) + "\n")
            self._lines.clear()
            self._log.trim()
