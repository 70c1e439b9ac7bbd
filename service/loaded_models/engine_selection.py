"""Measures the candidates of a version on this machine, once for all workers of a service.

The first worker that loads a version measures. All other workers, and restarted ones, read its choice from a file.
"""

import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from pydantic import BaseModel, ValidationError

from service.atomic_files import atomic_write, lock_exclusively
from service.errors import BrokenVersion
from service.inference.engine_choice import Candidate, choose
from service.inference.session import WARM_UP_TIMEOUT_S, Session, WarmUpSession
from service.observability import logs

BATCH_SIZE = 8
"""Images per timed run. Engines differ more with a batch than with one image, and a busy service runs batches."""
MAX_TIME_S = 0.2  # per candidate, unless MIN_RUNS take longer
MIN_RUNS = 2
MAX_WAIT_S = WARM_UP_TIMEOUT_S + 60.0
"""Maximum time that a worker waits for the measurement of another worker, in which a hanging run fails after
WARM_UP_TIMEOUT_S."""
POLL_INTERVAL_S = 0.02


class EngineChoice(BaseModel, frozen=True):
    """The name of the candidate that serves a version, the milliseconds per run of each candidate that ran, and the
    reasons why others failed."""

    name: str
    batch_size: int = 0
    """Images per timed run; 0 if there was only one candidate."""
    times_ms: dict[str, float] = {}
    failures: dict[str, str] = {}


@dataclass
class EngineChoices:
    """The choices of a service, one per version. They are kept in files of `folder`, which the workers share. Without a
    folder they are kept in this process only."""

    folder: Path | None = None
    max_wait_s: float = MAX_WAIT_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _known: dict[str, EngineChoice] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str, names: Sequence[str], measure: Callable[[], EngineChoice]) -> EngineChoice:
        """Returns the known choice for `key` if it is one of `names`, otherwise the result of `measure`.

        Only one measurement runs at a time, unless a worker hangs in its measurement.
        """
        with self._lock, self._exclusive():
            choice = self._known.get(key) or self._read(key)
            if choice is None or choice.name not in names:
                choice = measure()
                self._write(key, choice)
            self._known[key] = choice
            return choice

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Makes other workers wait, because simultaneous measurements would distort each other."""
        if self.folder is None:
            yield
            return
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            self._wait_for(file)
            yield

    def _wait_for(self, file: TextIO) -> None:
        """Locks the file. Gives up after `max_wait_s`, because the worker that holds the lock must be hanging."""
        end_s = self.clock() + self.max_wait_s
        while True:
            try:
                return lock_exclusively(file, wait=False)
            except BlockingIOError:
                if self.clock() >= end_s:
                    event = "another worker has not finished measuring engines; this worker measures itself"
                    logs.event(logging.WARNING, event, waited_s=self.max_wait_s)
                    return None
            self.sleep(POLL_INTERVAL_S)

    def _read(self, key: str) -> EngineChoice | None:
        try:
            return None if self.folder is None else EngineChoice.model_validate_json(self._path(key).read_bytes())
        except (OSError, ValidationError):
            return None

    def _write(self, key: str, choice: EngineChoice) -> None:
        if self.folder is not None:
            atomic_write(self._path(key), choice.model_dump_json().encode())

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.json"


class FixedEngine(EngineChoices):
    """Always selects the candidate with one name: a resumed job must use the engine that it started with."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def get(self, key: str, names: Sequence[str], measure: Callable[[], EngineChoice]) -> EngineChoice:
        """Raises BrokenVersion if `names` does not contain the candidate."""
        if self._name not in names:
            raise BrokenVersion(f"This machine cannot run '{self._name}'; it can run {' and '.join(names)}.")
        return EngineChoice(name=self._name)


def measure_candidates(
    candidates: Sequence[Candidate],
    open_session: Callable[[Candidate], Session],
    input_shape: tuple[int, int, int],
    batch_size: int,
    timeout_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> EngineChoice:
    """Measures the candidates one after the other, with one open session at a time, and returns the choice.

    Candidates that cannot run are reported in `failures`. Raises BrokenVersion if no candidate can run.
    """
    times_ms: dict[Candidate, float] = {}
    failures: dict[str, BrokenVersion] = {}
    for candidate in candidates:
        try:
            times_ms[candidate] = _run_ms(open_session(candidate), input_shape, batch_size, timeout_s, clock)
        except BrokenVersion as error:
            # The traceback would keep the session in memory.
            failures[candidate.name] = error.with_traceback(None)
            error.__context__ = error.__cause__ = None
        gc.collect()  # frees the session before the next one is loaded
    if not times_ms:
        raise failures[candidates[0].name]
    return EngineChoice(
        name=choose(times_ms).name,
        batch_size=batch_size,
        times_ms={candidate.name: ms for candidate, ms in times_ms.items()},
        failures={name: failure.message for name, failure in failures.items()},
    )


def _run_ms(
    session: Session,
    input_shape: tuple[int, int, int],
    batch_size: int,
    timeout_s: float,
    clock: Callable[[], float],
) -> float:
    """Returns the milliseconds of the fastest of several runs, after a warm-up run."""
    session.warm_up([batch_size], timeout_s)
    batch = np.zeros((batch_size, *input_shape), np.uint8)
    fastest_s, runs, end_s = math.inf, 0, clock() + MAX_TIME_S
    with closing(WarmUpSession(session, timeout_s)) as warm_session:
        while runs < MIN_RUNS or clock() < end_s:
            started_s = clock()
            warm_session.run(batch)
            fastest_s = min(fastest_s, clock() - started_s)
            runs += 1
    return round(fastest_s * 1000, 3)
