"""Distributed training without JAX: ranks from the environment, shared failures, and differences between processes."""

import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from training.errors import TrainingError
from training.fit.distributed.data_parallel import SINGLE_PROCESS, DistributedContext, process_info_from
from training.fit.distributed.rendezvous import ProcessInfo, rendezvous

ENVIRONMENT = {"CONVOY_COORDINATOR": "trainer-0.trainer:29500", "CONVOY_NUM_PROCESSES": "4", "CONVOY_PROCESS_ID": "3"}


def test_importing_the_module_does_not_import_keras() -> None:
    program = "import sys, training.fit.distributed.data_parallel; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_environment_gives_rank_and_world_size() -> None:
    assert process_info_from(ENVIRONMENT) == ProcessInfo("trainer-0.trainer", 29500, 4, 3, 300.0)
    assert process_info_from(ENVIRONMENT | {"CONVOY_JOIN_TIMEOUT_S": "20"}).timeout_s == 20
    assert process_info_from(ENVIRONMENT | {"CONVOY_COORDINATOR": "[::1]:29500"}).host == "::1"
    assert process_info_from({"PATH": "/bin"}) is None
    assert process_info_from(dict.fromkeys(ENVIRONMENT, "")) is None


def test_an_indexed_job_numbers_its_processes() -> None:
    job = {name: value for name, value in ENVIRONMENT.items() if name != "CONVOY_PROCESS_ID"} | {
        "JOB_COMPLETION_INDEX": "2"
    }
    assert process_info_from(job).rank == 2
    assert process_info_from(job | {"CONVOY_PROCESS_ID": "1"}).rank == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"CONVOY_COORDINATOR": ""}, "CONVOY_NUM_PROCESSES, CONVOY_PROCESS_ID is set without CONVOY_COORDINATOR"),
        ({"CONVOY_NUM_PROCESSES": ""}, "without CONVOY_NUM_PROCESSES: --distributed needs all three"),
        ({"CONVOY_COORDINATOR": "trainer"}, "is 'trainer': write the HOST:PORT of process 0"),
        ({"CONVOY_COORDINATOR": "trainer:99999"}, "write the HOST:PORT"),
        ({"CONVOY_COORDINATOR": ":29500"}, "write the HOST:PORT"),
        ({"CONVOY_NUM_PROCESSES": "0"}, "CONVOY_NUM_PROCESSES is '0'; it must be a whole number, at least 1"),
        ({"CONVOY_PROCESS_ID": "-1"}, "CONVOY_PROCESS_ID is '-1'; it must be a whole number, at least 0"),
        ({"CONVOY_PROCESS_ID": "4"}, "CONVOY_PROCESS_ID is 4; with 4 processes it must be at most 3"),
        ({"CONVOY_JOIN_TIMEOUT_S": "soon"}, "CONVOY_JOIN_TIMEOUT_S is 'soon'"),
    ],
)
def test_an_impossible_rank_or_address_is_rejected(changed: dict[str, str], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        process_info_from(ENVIRONMENT | changed)


def test_an_indexed_job_without_a_coordinator_does_not_train_alone() -> None:
    with pytest.raises(TrainingError, match="without CONVOY_COORDINATOR and CONVOY_NUM_PROCESSES"):
        process_info_from({"JOB_COMPLETION_INDEX": "0"})


def run_processes(*functions: Callable[[DistributedContext], object]) -> list[object]:
    """Runs each process in a thread. Returns its result or its exception."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def run(rank: int) -> object:
        process = ProcessInfo("127.0.0.1", port, len(functions), rank, 20)
        context = DistributedContext(process, rendezvous(process), data_parallel=True)
        try:
            with context.fail_together():
                return functions[rank](context)
        except TrainingError as error:
            return str(error)

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, range(len(functions))))


def returns_steps(steps: int) -> Callable[[DistributedContext], object]:
    return lambda context: context.run_and_compare(
        lambda: steps, lambda result: {"recipe": "mlp", "number of steps": str(result)}
    )


def fails(context: DistributedContext) -> object:
    def load() -> int:
        raise TrainingError("photos lacks train/: put it there.")

    return context.run_and_compare(load, lambda result: {})


def test_processes_with_equal_results_continue() -> None:
    assert run_processes(returns_steps(7), returns_steps(7), returns_steps(7)) == [7, 7, 7]


def test_different_numbers_of_steps_end_all_processes_with_the_difference() -> None:
    message = "All processes must have the same settings, but number of steps is 8 in process 0, 7 in process 2."
    assert run_processes(returns_steps(8), returns_steps(8), returns_steps(7)) == [message] * 3


def test_a_missing_file_of_one_process_ends_all_with_its_name() -> None:
    messages = run_processes(returns_steps(8), fails)
    assert messages == [
        "Process 1 of 2 failed: photos lacks train/: put it there.",
        "photos lacks train/: put it there.",
    ]


def test_a_process_that_fails_early_ends_the_others() -> None:
    def fail_early(context: DistributedContext) -> object:
        raise TrainingError("no such thing")

    assert run_processes(returns_steps(8), fail_early) == ["Process 1 of 2 failed: no such thing", "no such thing"]


def test_the_first_decides_for_all() -> None:
    def broadcast(context: DistributedContext) -> str:
        return context.broadcast(lambda: f"decided by {context.process_name}")

    assert run_processes(broadcast, broadcast) == ["decided by Process 0 of 2"] * 2


def test_only_the_first_is_main() -> None:
    assert run_processes(lambda context: context.is_main, lambda context: context.is_main) == [True, False]


def test_a_single_process_needs_no_communication() -> None:
    assert SINGLE_PROCESS.is_main
    assert SINGLE_PROCESS.run_and_compare(lambda: 3, lambda result: pytest.fail("nothing to compare with")) == 3
    assert SINGLE_PROCESS.broadcast(lambda: "so") == "so"
    with SINGLE_PROCESS.fail_together(), SINGLE_PROCESS.scope():
        pass
    assert SINGLE_PROCESS.describe() == {}
