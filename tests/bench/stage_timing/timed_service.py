"""Runs `convoy serve` with the timers of stage_timing/timers.py and an additional path that returns their readings."""

import json
import sys
from typing import Any

import service.app
import service.server.worker
from service import cli
from tests.bench.stage_timing.timers import HTTP, PATH, STAGES, StageTimers, install, replace, timed

CALLS = 20_000


class TimingMiddleware:
    """The outermost middleware: the server's work in `receive` and `send` counts as HTTP, whichever stage calls
    them."""

    def __init__(self, app: Any, timers: StageTimers) -> None:
        self._app = app
        self._timers = timers
        self._overhead_ns = timer_overhead_ns()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == PATH:
            await _reply(send, self._times_ns())
        else:
            await self._app(scope, timed(receive, HTTP, self._timers), timed(send, HTTP, self._timers))

    def _times_ns(self) -> dict[str, float]:
        """Returns the nanoseconds that each stage has used so far, without the overhead of its timers."""
        used_ns, intervals = self._timers.totals_ns(), self._timers.intervals()
        return {stage: used_ns[stage] - intervals[stage] * self._overhead_ns for stage in STAGES}


def timer_overhead_ns() -> float:
    """Returns the mean time that a timer measures for an empty function."""
    timers = StageTimers()
    no_op = timed(lambda: None, HTTP, timers)
    for _ in range(CALLS):
        no_op()
    return timers.totals_ns()[HTTP] / CALLS


async def _reply(send: Any, payload: dict[str, float]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(payload).encode()})


def main() -> None:
    timers = StageTimers()
    install(timers)
    build = service.app.create_app

    def create_app(*parts: Any, **named_parts: Any) -> Any:
        app = build(*parts, **named_parts)
        app.add_middleware(TimingMiddleware, timers=timers)
        return app

    replace(service.app, build, create_app)
    sys.argv = ["convoy", "serve"]
    cli.main()


if __name__ == "__main__":
    main()
