"""`convoy serve` with the timers of stage_timing/timers.py installed, and one more path that returns their readings."""

import json
import sys
from typing import Any

import service.app
import service.server.worker
from service import cli
from tests.bench.stage_timing.timers import HTTP, PATH, STAGES, Clocks, install, replace, timed

READINGS = 20_000


class Clocked:
    """The outermost layer: what the server does in `receive` and `send` is HTTP, whoever calls it."""

    def __init__(self, app: Any, clocks: Clocks) -> None:
        self._app = app
        self._clocks = clocks
        self._cost_ns = clock_cost_ns()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == PATH:
            await _reply(send, self._reading())
        else:
            await self._app(scope, timed(receive, HTTP, self._clocks), timed(send, HTTP, self._clocks))

    def _reading(self) -> dict[str, float]:
        """Nanoseconds of each stage until now, without what its clock itself has cost it."""
        used_ns, stretches = self._clocks.totals_ns(), self._clocks.stretches()
        return {stage: used_ns[stage] - stretches[stage] * self._cost_ns for stage in STAGES}


def clock_cost_ns() -> float:
    """What the clock shows for a function that does nothing: the mean of many calls."""
    clocks = Clocks()
    nothing = timed(lambda: None, HTTP, clocks)
    for _ in range(READINGS):
        nothing()
    return clocks.totals_ns()[HTTP] / READINGS


async def _reply(send: Any, payload: dict[str, float]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(payload).encode()})


def main() -> None:
    clocks = Clocks()
    install(clocks)
    build = service.app.create_app

    def create_app(*parts: Any, **named_parts: Any) -> Any:
        app = build(*parts, **named_parts)
        app.add_middleware(Clocked, clocks=clocks)
        return app

    replace(service.app, build, create_app)
    sys.argv = ["convoy", "serve"]
    cli.main()


if __name__ == "__main__":
    main()
