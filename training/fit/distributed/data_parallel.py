"""Trains one network on all devices of one or more processes, on one machine or many.

With JAX, Keras' DataParallel gives every device its rows of each batch and sums the gradients over all devices with
XLA's collectives (gloo between CPUs, NCCL between GPUs). Batch normalization uses the mean and variance of the whole
batch, so that the loss equals that of one process with the same `batch_size`. Only process 0 writes the run.
"""

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

from service.exit_codes import EXIT_RETRY, EXIT_STOPPED, may_pass
from training.data.sharding import UNSHARDED, BatchShard
from training.errors import EXIT_CRASHED, PeerLost, TrainingError, first_line
from training.fit.distributed.consistency import Invariants, check_consistent
from training.fit.distributed.rendezvous import ProcessGroup, ProcessInfo, rendezvous

COORDINATOR, NUM_PROCESSES, PROCESS_ID = "CONVOY_COORDINATOR", "CONVOY_NUM_PROCESSES", "CONVOY_PROCESS_ID"
JOB_INDEX = "JOB_COMPLETION_INDEX"
"""The variable with the index of a process in a Kubernetes Indexed Job."""
JOIN_TIMEOUT = "CONVOY_JOIN_TIMEOUT_S"
MAX_ERROR_CHARS = 4000
"""Maximum length of an error text that is sent to the other processes."""
PEER_LOSS_WAIT_S = 2.0
"""Time to wait, after an error in JAX, for a report that another process is lost, which would explain the error."""
RESUME_HINT = " Resume after the last finished epoch with --resume, in all processes."

Result = TypeVar("Result")


def process_info_from(environ: Mapping[str, str]) -> ProcessInfo | None:
    """Reads this process's rank, the number of processes and the coordinator; returns None if no variable is set.

    Raises TrainingError for missing and invalid variables.
    """
    rank_name = PROCESS_ID if PROCESS_ID in environ else JOB_INDEX
    present = {name for name in (COORDINATOR, NUM_PROCESSES, rank_name) if environ.get(name)}
    if not present:
        return None
    if missing := [name for name in (COORDINATOR, NUM_PROCESSES, rank_name) if name not in present]:
        names = " and ".join(PROCESS_ID if name == JOB_INDEX else name for name in missing)
        raise TrainingError(
            f"{', '.join(sorted(present))} is set without {names}: --distributed needs all three variables, or none."
        )
    host, colon, port = environ[COORDINATOR].rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise TrainingError(f"{COORDINATOR} is {environ[COORDINATOR]!r}: write the HOST:PORT of process 0.")
    world_size, rank = _integer(environ, NUM_PROCESSES, 1), _integer(environ, rank_name, 0)
    if rank >= world_size:
        raise TrainingError(f"{rank_name} is {rank}; with {world_size} processes it must be at most {world_size - 1}.")
    timeout_s = _integer(environ, JOIN_TIMEOUT, 1) if environ.get(JOIN_TIMEOUT) else ProcessInfo.timeout_s
    return ProcessInfo(host.strip("[]"), int(port), world_size, rank, timeout_s)


def _integer(environ: Mapping[str, str], name: str, minimum: int) -> int:
    if not environ[name].isdigit() or int(environ[name]) < minimum:
        raise TrainingError(f"{name} is {environ[name]!r}; it must be a whole number, at least {minimum}.")
    return int(environ[name])


class DistributedContext:
    """The processes and devices that train a run together.

    The default, `SINGLE_PROCESS`, is one process on one device of any backend. `data_parallel` uses all devices, and a
    `group` the devices of several processes.
    """

    def __init__(
        self, process: ProcessInfo | None = None, group: ProcessGroup | None = None, data_parallel: bool = False
    ) -> None:
        self.shard = UNSHARDED
        self._process = process
        self._group = group
        self._data_parallel = data_parallel
        self._distribution: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run."""
        return self._process is None or self._process.rank == 0

    @property
    def process_name(self) -> str:
        return self._process.name_of(self._process.rank) if self._process else "This process"

    def describe(self) -> dict[str, Any]:
        """Returns the processes and devices for run.json; empty for one process on one device."""
        if self._distribution is None:
            return {}
        kind = str(self._distribution.device_mesh.devices.flat[0]).partition(":")[0]
        return {"processes": self.shard.world_size, "devices": self.shard.devices, "device": kind}

    def run_and_compare(self, function: Callable[[], Result], invariants: Callable[[Result], Invariants]) -> Result:
        """Calls `function` in every process. Returns the result of this process if the invariants of all results are
        equal.

        Raises TrainingError in all processes if the function raises it in one of them, or if the invariants differ.
        """
        if self._group is None:
            return function()
        try:
            result = function()
            message: dict[str, Any] = {"invariants": invariants(result)}
        except TrainingError as error:
            self._group.all_gather(json.dumps({"error": str(error)[:MAX_ERROR_CHARS]}))
            raise
        messages = [json.loads(text) for text in self._group.all_gather(json.dumps(message))]
        for rank, message in enumerate(messages):
            if "error" in message:
                raise TrainingError(f"{self._group.process.name_of(rank)} failed: {message['error']}")
        check_consistent([message["invariants"] for message in messages])
        return result

    def broadcast(self, compute: Callable[[], str]) -> str:
        """Calls `compute` in process 0 and returns its result in all processes."""
        value = compute() if self.is_main else ""
        return value if self._group is None else self._group.all_gather(value)[0]

    def barrier(self) -> None:
        """Waits until all processes have called this."""
        if self._group is not None:
            self._group.barrier()

    def initialize(self) -> None:
        """Connects the devices of all processes, once. Raises TrainingError if their numbers of devices differ."""
        if not self._data_parallel or self._distribution is not None:
            return
        import keras

        if self._group is not None:
            process = self._group.process
            if process.is_local:
                os.environ.setdefault("JAX_COORDINATOR_BIND_ADDRESS", process.address)
            keras.distribution.initialize(process.address, process.world_size, process.rank)
        self.run_and_compare(_local_devices, lambda devices: {"devices": devices})
        self._distribution = keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(),
            auto_shard_dataset=False,  # for tf.data only; batches already contain only this process's rows
        )
        rank, world_size = (self._process.rank, self._process.world_size) if self._process else (0, 1)
        self.shard = BatchShard(rank, world_size, self._distribution.num_model_replicas)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Within the context, networks are built and trained on all devices by all processes together."""
        self.initialize()
        if self._distribution is None:
            yield
        elif self._group is None:
            with self._distribution.scope():
                yield
        else:
            with self._distribution.scope(), self._group.watch_peers(partial(_exit_on_peer_lost, self._group)):
                yield

    @contextmanager
    def local_scope(self) -> Iterator[None]:
        """Within the context, networks are built and run by this process alone, on its own device."""
        if self._distribution is None:
            yield
            return
        import keras

        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(self._distribution)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Within the context, an exception in one process is sent to the other processes, which then exit as well."""
        if self._group is None:
            yield
            return
        try:
            yield
        except BaseException as error:
            self._report_failure(self._group, error)
            raise
        self._group.close()

    def _report_failure(self, group: ProcessGroup, error: BaseException) -> None:
        is_expected = isinstance(error, (TrainingError, KeyboardInterrupt))
        if not is_expected and self._distribution is not None and group.wait_for_peer_loss(PEER_LOSS_WAIT_S):
            error = PeerLost(f"Another process was lost during a computation ({first_line(error)}).")
            is_expected = True
        is_peer_lost = isinstance(error, PeerLost)
        message = str(error) if is_peer_lost else f"{self.process_name} failed: {first_line(error)}"
        group.close(message[:MAX_ERROR_CHARS])
        if self._distribution is None:
            return
        if not is_expected:
            _exit_now(EXIT_RETRY if may_pass(error) else EXIT_CRASHED, "".join(traceback.format_exception(error)))
        is_stopped = isinstance(error, KeyboardInterrupt)
        hint = RESUME_HINT if is_stopped or is_peer_lost else ""
        code = error.exit_code if isinstance(error, TrainingError) else EXIT_STOPPED
        _exit_now(code, f"Error: {'Stopped.' if is_stopped else error}{hint}\n")


SINGLE_PROCESS = DistributedContext()


def join(environ: Mapping[str, str]) -> DistributedContext:
    """Connects to the processes that the environment names. If no variable is set, uses this process and all its
    devices.

    Raises TrainingError if a process is missing, and if JAX is not installed. Must run before Keras is imported,
    because it selects the JAX backend.
    """
    if importlib.util.find_spec("jax") is None:
        raise TrainingError("--distributed trains with JAX, which is not installed: pip install 'convoy[jax]'.")
    os.environ["KERAS_BACKEND"] = "jax"
    process = process_info_from(environ)
    if process is None or process.world_size == 1:
        return DistributedContext(data_parallel=True)
    return DistributedContext(process, rendezvous(process), data_parallel=True)


def _local_devices() -> str:
    import jax

    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].platform}"


def _exit_on_peer_lost(group: ProcessGroup, reason: str) -> NoReturn:
    """Exits this process while its devices compute, because they may wait for the lost process forever."""
    group.close(reason)
    _exit_now(PeerLost.exit_code, f"Error: {reason}{RESUME_HINT}\n")


def _exit_now(code: int, message: str) -> NoReturn:
    """Exits the process at once. JAX's shutdown would wait for all other processes, and abort if one is missing."""
    sys.stdout.flush()
    sys.stderr.write(message)
    sys.stderr.flush()
    os._exit(code)
