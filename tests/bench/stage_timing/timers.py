"""Measures processor time by stage in a running service: every function of a stage's modules runs its stage's timer.

The clock is the thread's processor time, so waiting does not count. If a stage calls another stage, the time counts
only for the inner stage. The timer of a coroutine runs only while the coroutine runs. Modules that are not in the table
(routing, middleware, uvicorn, the event loop) are the remainder, which the report calls HTTP.
"""

import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FunctionType, ModuleType
from typing import Any

HTTP = "HTTP"
BODY, DECODE, QUEUE, COMPUTE, ENCODE = "body", "decode", "queue", "compute", "encode"
PATH = "/bench/clocks"  # the path at which a service with timers returns its times
STAGES = (HTTP, BODY, DECODE, QUEUE, COMPUTE, ENCODE)

# A module, whose functions all belong to the stage, or module:function, including everything that it calls.
STAGE_FUNCTIONS: dict[str, tuple[str, ...]] = {
    BODY: (
        "service.api.http.body",
        "service.api.http.request_headers",
        "service.api.native.batch_request",
        "service.api.http.compression:decompress",
        "service.api.http.form",
        "service.api.http.json_arrays",
        "service.api.http.large_json",
        "service.api.v2.request_parser",
    ),
    DECODE: (
        "service.imaging.decode",
        "service.imaging.fast_png",
        "service.imaging.limits",
        "service.imaging.model_input",
        "service.imaging.preprocess",
    ),
    QUEUE: (
        "service.inference.admission",
        "service.inference.batch",
        "service.inference.batch_runner",
        "service.inference.batcher",
    ),
    COMPUTE: ("service.inference.session",),
    ENCODE: (
        "service.api.http.compression:compress_body",
        "service.api.v1.response_encoder",
        "service.api.v2.response_encoder",
        "service.api.http.responses",
        "service.classification.top_k",
    ),
}


class StageTimers:
    """Nanoseconds of processor time by stage, over all threads."""

    def __init__(self, now_ns: Callable[[], int] = time.thread_time_ns) -> None:
        self._now_ns = now_ns
        self._own = threading.local()
        self._threads: list[_Thread] = []

    def enter(self, stage: str | None) -> str | None:
        """Switches the calling thread to `stage` (None: the remainder). Returns its previous stage."""
        thread = self._thread()
        previous = thread.stage
        if previous != stage:
            thread.change(stage, self._now_ns())
        return previous

    def totals_ns(self) -> dict[str, int]:
        """Returns the time of each stage so far. The current stage of a thread counts up to its last switch."""
        return {stage: sum(t.used_ns.get(stage, 0) for t in list(self._threads)) for stage in STAGES}

    def intervals(self) -> dict[str, int]:
        """Returns the number of intervals per stage. Each includes the cost of starting and stopping the timer once."""
        return {stage: sum(t.intervals.get(stage, 0) for t in list(self._threads)) for stage in STAGES}

    def _thread(self) -> "_Thread":
        thread: _Thread | None = getattr(self._own, "thread", None)
        if thread is None:
            thread = self._own.thread = _Thread()
            self._threads.append(thread)
        return thread


class _Thread:
    """The current stage and the times of one thread. Time outside of all stages is not counted."""

    __slots__ = ("intervals", "since_ns", "stage", "used_ns")

    def __init__(self) -> None:
        self.stage: str | None = None
        self.since_ns = 0
        self.used_ns: dict[str, int] = {}
        self.intervals: dict[str, int] = {}

    def change(self, stage: str | None, now_ns: int) -> None:
        if self.stage is not None:
            self.used_ns[self.stage] = self.used_ns.get(self.stage, 0) + now_ns - self.since_ns
            self.intervals[self.stage] = self.intervals.get(self.stage, 0) + 1
        self.stage, self.since_ns = stage, now_ns


def timed(function: Callable[..., Any], stage: str, timers: StageTimers) -> Callable[..., Any]:
    """Wraps a function so that its stage's timer runs during each call, or during each step of a coroutine."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await _TimedCoroutine(function(*args, **kwargs), stage, timers)

        return coroutine

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        previous = timers.enter(stage)
        try:
            return function(*args, **kwargs)
        finally:
            timers.enter(previous)

    return wrapper


class _TimedCoroutine:
    """Awaits a coroutine; the timer runs from one suspension to the next."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], stage: str, timers: StageTimers) -> None:
        self._coroutine, self._stage, self._timers = coroutine, stage, timers

    def __await__(self) -> Any:
        resume: Callable[[], Any] = functools.partial(self._coroutine.send, None)
        while True:
            previous = self._timers.enter(self._stage)
            try:
                awaited = resume()
            except StopIteration as done:
                return done.value
            finally:
                self._timers.enter(previous)
            try:
                value = yield awaited
                resume = functools.partial(self._coroutine.send, value)
            except BaseException as error:  # a cancellation is passed on to the coroutine
                resume = functools.partial(self._coroutine.throw, error)


def install(timers: StageTimers) -> list[str]:
    """Replaces the functions of all stages wherever `service` refers to them. Returns the names of the timed functions.

    The modules must have been imported, but none of their classes instantiated. Raises LookupError for a missing name.
    """
    names = []
    for stage, targets in STAGE_FUNCTIONS.items():
        for target in targets:
            functions = _functions(target)
            if not functions:
                raise LookupError(
                    f"{target} does not exist; update STAGE_FUNCTIONS in tests/bench/stage_timing/timers.py."
                )
            for owner, function in functions:
                replace(owner, function, timed(function, stage, timers))
                names.append(f"{function.__module__}:{function.__qualname__}")
    return names


def _functions(target: str) -> list[tuple[Any, FunctionType]]:
    """Returns the owner and the function for each function that an entry of the table covers."""
    module_name, _, function_name = target.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        return []
    return [
        (owner, value)
        for owner in [module, *_classes(module)]
        for value in list(vars(owner).values())
        if _is_timeable(value) and value.__module__ == module_name and function_name in ("", value.__qualname__)
    ]


def _is_timeable(value: object) -> bool:
    generates = inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value)
    return isinstance(value, FunctionType) and not generates and not value.__name__.startswith("__")


def _classes(module: ModuleType) -> list[type]:
    return [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]


def replace(owner: Any, function: FunctionType, replacement: Callable[..., Any]) -> None:
    """Replaces the function in the class `owner` and in every module of the service that refers to it."""
    if inspect.isclass(owner):
        setattr(owner, function.__name__, replacement)
        return
    for name, module in list(sys.modules.items()):
        if name == "service" or name.startswith("service."):
            for attribute, value in list(vars(module).items()):
                if value is function:
                    setattr(module, attribute, replacement)
