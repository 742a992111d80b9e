"""`python -m local.gateway --state STATE`: serve the deployment until SIGTERM, SIGINT or SIGHUP."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from local.gateway.app import Gateway
from local.gateway.settings import Settings, load_settings
from local.processes import StartError


async def serve(settings: Settings) -> None:
    """Run a gateway until a signal stops it; a second signal ends it at once, and its workers with it."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def on_signal() -> None:
        if stopped.is_set():
            os.kill(os.getpid(), signal.SIGKILL)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    gateway = Gateway(settings)
    gateway.start()
    print(f"The gateway serves http://{gateway.address}", flush=True)
    await stopped.wait()
    await gateway.stop()


def main(arguments: list[str]) -> None:
    """Read the options and serve; exit 1 with one line when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m local.gateway", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the state folder, with gateway.json in it")
    parser.add_argument("--port", type=int, help="instead of the port in gateway.json; 0 takes a free one")
    parser.add_argument("--template", type=Path, help="instead of this project's template.yaml")
    options = parser.parse_args(arguments)
    try:
        uvloop.run(serve(load_settings(options.state, template=options.template, port=options.port)))
    except StartError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
