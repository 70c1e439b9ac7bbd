"""Several processes, on one machine or many, train one network: what each must know of the others, and do with them.

Keras' DataParallel on JAX computes as one machine with all their devices would: every device takes its rows of each
batch, gradients are summed over all (XLA's collectives: gloo between CPUs, NCCL between GPUs), and so are the batch's
means and variances. Batch normalisation is over the whole batch, not over each process's rows, so that the loss is
that of one process at the same `batch_size`. Process 0 alone writes the run.
"""

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from training.data.sharding import WHOLE, BatchShard
from training.errors import TrainingError
from training.fit.distributed.consistency import Facts, check_alike
from training.fit.distributed.rendezvous import PeerLost, ProcessGroup, ProcessInfo, rendezvous

COORDINATOR, PROCESSES, PROCESS = "CONVOY_COORDINATOR", "CONVOY_NUM_PROCESSES", "CONVOY_PROCESS_ID"
JOB_INDEX = "JOB_COMPLETION_INDEX"
"""What Kubernetes calls a process of an Indexed Job."""
JOIN_TIMEOUT = "CONVOY_JOIN_TIMEOUT_S"
LONGEST = 4000
"""Characters of an error that the other processes are told."""
LAST_WORDS_S = 2.0
"""How long an error of JAX waits for the news that another process has gone, which explains it."""
CRASHED, STOPPED = 1, 130

Made = TypeVar("Made")


def seat_from(environ: Mapping[str, str]) -> ProcessInfo | None:
    """This process's place among those that the environment names; None where it names none.

    Raises TrainingError for what is missing or wrong.
    """
    number = PROCESS if PROCESS in environ else JOB_INDEX
    given = {name for name in (COORDINATOR, PROCESSES, number) if environ.get(name)}
    if not given:
        return None
    if missing := [name for name in (COORDINATOR, PROCESSES, number) if name not in given]:
        names = " and ".join(PROCESS if name == JOB_INDEX else name for name in missing)
        raise TrainingError(f"{', '.join(sorted(given))} without {names}: --distributed needs all three, or none.")
    host, colon, port = environ[COORDINATOR].rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise TrainingError(f"{COORDINATOR} is {environ[COORDINATOR]!r}: write the HOST:PORT of process 0.")
    processes, process = _whole(environ, PROCESSES, 1), _whole(environ, number, 0)
    if process >= processes:
        raise TrainingError(f"{number} is {process}: of {processes} processes the last is number {processes - 1}.")
    timeout_s = _whole(environ, JOIN_TIMEOUT, 1) if environ.get(JOIN_TIMEOUT) else ProcessInfo.timeout_s
    return ProcessInfo(host.strip("[]"), int(port), processes, process, timeout_s)


def _whole(environ: Mapping[str, str], name: str, least: int) -> int:
    if not environ[name].isdigit() or int(environ[name]) < least:
        raise TrainingError(f"{name} is {environ[name]!r}: a whole number from {least} was expected.")
    return int(environ[name])


class DistributedContext:
    """The processes that train a run together; by itself (`ALONE`) one process, on one device, of any backend."""

    def __init__(
        self, process: ProcessInfo | None = None, group: ProcessGroup | None = None, spreads: bool = False
    ) -> None:
        self.share = WHOLE
        self._seat = process
        self._group = group
        self._spreads = spreads
        self._distribution: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes the run."""
        return self._seat is None or self._seat.process == 0

    @property
    def name(self) -> str:
        return self._seat.called(self._seat.process) if self._seat else "This process"

    def describe(self) -> dict[str, Any]:
        """What a run records of those that train it; nothing of one process on one device."""
        if self._distribution is None:
            return {}
        kind = str(self._distribution.device_mesh.devices.flat[0]).partition(":")[0]
        return {"processes": self.share.processes, "devices": self.share.devices, "device": kind}

    def prepare(self, make: Callable[[], Made], facts: Callable[[Made], Facts]) -> Made:
        """What `make` gives, once it has given what has the same facts in all processes.

        Raises TrainingError in all of them when it does so in one, or when the facts differ.
        """
        if self._group is None:
            return make()
        try:
            made = make()
            told: dict[str, Any] = {"facts": facts(made)}
        except TrainingError as error:
            self._group.exchange(json.dumps({"error": str(error)[:LONGEST]}))
            raise
        answers = [json.loads(text) for text in self._group.exchange(json.dumps(told))]
        for process, answer in enumerate(answers):
            if "error" in answer:
                raise TrainingError(f"{self._seat.called(process)} cannot go on: {answer['error']}")
        check_alike([answer["facts"] for answer in answers])
        return made

    def broadcast(self, decide: Callable[[], str]) -> str:
        """What process 0 decides, in all processes; the others wait for it."""
        decision = decide() if self.is_main else ""
        return decision if self._group is None else self._group.exchange(decision)[0]

    def start(self) -> None:
        """Brings all devices of all processes together. Raises TrainingError when they have not equally many."""
        if not self._spreads or self._distribution is not None:
            return
        import keras

        if self._group is not None:
            if self._seat.local:
                os.environ.setdefault("JAX_COORDINATOR_BIND_ADDRESS", self._seat.address)
            keras.distribution.initialize(self._seat.address, self._seat.processes, self._seat.process)
        self.prepare(_local_devices, lambda devices: {"devices": devices})
        self._distribution = keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(),
            auto_shard_dataset=False,  # which is for tf.data; our batches hold this process's rows already
        )
        process, processes = (self._seat.process, self._seat.processes) if self._seat else (0, 1)
        self.share = BatchShard(process, processes, self._distribution.num_model_replicas)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """While it lasts, networks are built and trained on all devices, by all processes in step."""
        self.start()
        if self._distribution is None:
            yield
        elif self._group is None:
            with self._distribution.scope():
                yield
        else:
            with self._distribution.scope(), self._group.watched(self._end):
                yield

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Around everything that the team does: an exception here is told to the others, who then end as well."""
        if self._group is None:
            yield
            return
        try:
            yield
        except BaseException as error:
            self._give_up(error)
            raise
        self._group.close()

    def _give_up(self, error: BaseException) -> None:
        expected = isinstance(error, (TrainingError, KeyboardInterrupt))
        if not expected and self._distribution is not None and self._group.wait_for_gone(LAST_WORDS_S):
            error, expected = (
                PeerLost(f"Another process has gone, and with it what it computed ({_short(error)})."),
                True,
            )
        said = str(error) if isinstance(error, PeerLost) else f"{self.name} has ended: {_short(error)}"
        self._group.close(said[:LONGEST])
        if self._distribution is None:
            return
        if not expected:
            _leave(CRASHED, "".join(traceback.format_exception(error)))
        stopped = isinstance(error, KeyboardInterrupt)
        go_on = GO_ON if stopped or isinstance(error, PeerLost) else ""
        code = error.exit_code if isinstance(error, TrainingError) else STOPPED
        _leave(code, f"Error: {'Stopped.' if stopped else error}{go_on}\n")

    def _end(self, text: str) -> NoReturn:
        """Called while the devices compute, perhaps waiting in vain for a process that has gone."""
        self._group.close(text)
        _leave(PeerLost.exit_code, f"Error: {text}{GO_ON}\n")


ALONE = DistributedContext()
GO_ON = " Go on from the last finished epoch with --resume, in all processes."


def join(environ: Mapping[str, str]) -> DistributedContext:
    """The team that the environment names, once all of it is there; without names, this process with all its devices.

    Raises TrainingError when a process is missing, and without JAX. Makes Keras choose JAX: comes before its import.
    """
    if importlib.util.find_spec("jax") is None:
        raise TrainingError("--distributed trains with JAX, which is not installed: pip install 'convoy[jax]'.")
    os.environ["KERAS_BACKEND"] = "jax"
    process = seat_from(environ)
    return (
        DistributedContext(process, rendezvous(process), spreads=True)
        if process and process.processes > 1
        else DistributedContext(spreads=True)
    )


def _local_devices() -> str:
    import jax

    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].platform}"


def _short(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _leave(code: int, last_words: str) -> NoReturn:
    """Ends the process here: JAX's own way out waits for all others, and aborts when they do not come."""
    sys.stdout.flush()
    sys.stderr.write(last_words)
    sys.stderr.flush()
    os._exit(code)
