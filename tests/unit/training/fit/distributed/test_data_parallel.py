"""A team's rules without JAX: who sits where, that one process's mistake ends all, and that differences are named."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from training.errors import TrainingError
from training.fit.distributed.data_parallel import ALONE, DistributedContext, seat_from
from training.fit.distributed.rendezvous import ProcessInfo, rendezvous

NAMED = {"CONVOY_COORDINATOR": "trainer-0.trainer:29500", "CONVOY_NUM_PROCESSES": "4", "CONVOY_PROCESS_ID": "3"}


def test_the_environment_says_who_sits_where() -> None:
    assert seat_from(NAMED) == ProcessInfo("trainer-0.trainer", 29500, 4, 3, 300.0)
    assert seat_from(NAMED | {"CONVOY_JOIN_TIMEOUT_S": "20"}).timeout_s == 20
    assert seat_from(NAMED | {"CONVOY_COORDINATOR": "[::1]:29500"}).host == "::1"
    assert seat_from({"PATH": "/bin"}) is None
    assert seat_from(dict.fromkeys(NAMED, "")) is None


def test_an_indexed_job_numbers_its_processes() -> None:
    job = {name: value for name, value in NAMED.items() if name != "CONVOY_PROCESS_ID"} | {"JOB_COMPLETION_INDEX": "2"}
    assert seat_from(job).process == 2
    assert seat_from(job | {"CONVOY_PROCESS_ID": "1"}).process == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"CONVOY_COORDINATOR": ""}, "CONVOY_NUM_PROCESSES, CONVOY_PROCESS_ID without CONVOY_COORDINATOR"),
        ({"CONVOY_NUM_PROCESSES": ""}, "without CONVOY_NUM_PROCESSES: --distributed needs all three"),
        ({"CONVOY_COORDINATOR": "trainer"}, "is 'trainer': write the HOST:PORT of process 0"),
        ({"CONVOY_COORDINATOR": "trainer:99999"}, "write the HOST:PORT"),
        ({"CONVOY_COORDINATOR": ":29500"}, "write the HOST:PORT"),
        ({"CONVOY_NUM_PROCESSES": "0"}, "CONVOY_NUM_PROCESSES is '0': a whole number from 1 was expected"),
        ({"CONVOY_PROCESS_ID": "-1"}, "CONVOY_PROCESS_ID is '-1': a whole number from 0 was expected"),
        ({"CONVOY_PROCESS_ID": "4"}, "CONVOY_PROCESS_ID is 4: of 4 processes the last is number 3"),
        ({"CONVOY_JOIN_TIMEOUT_S": "soon"}, "CONVOY_JOIN_TIMEOUT_S is 'soon'"),
    ],
)
def test_a_place_that_cannot_be_is_refused(changed: dict[str, str], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        seat_from(NAMED | changed)


def test_an_indexed_job_without_a_meeting_place_does_not_train_alone() -> None:
    with pytest.raises(TrainingError, match="without CONVOY_COORDINATOR and CONVOY_NUM_PROCESSES"):
        seat_from({"JOB_COMPLETION_INDEX": "0"})


def team_of(*does: Callable[[DistributedContext], object]) -> list[object]:
    """What each process of a team has given or raised."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def live(process: int) -> object:
        seat = ProcessInfo("127.0.0.1", port, len(does), process, 20)
        team = DistributedContext(seat, rendezvous(seat), spreads=True)
        try:
            with team.fail_together():
                return does[process](team)
        except TrainingError as error:
            return str(error)

    with ThreadPoolExecutor(len(does)) as pool:
        return list(pool.map(live, range(len(does))))


def prepares(steps: int) -> Callable[[DistributedContext], object]:
    return lambda team: team.prepare(lambda: steps, lambda made: {"recipe": "mlp", "number of steps": str(made)})


def fails(team: DistributedContext) -> object:
    def make() -> int:
        raise TrainingError("photos lacks train/: put it there.")

    return team.prepare(make, lambda made: {})


def test_like_work_goes_on() -> None:
    assert team_of(prepares(7), prepares(7), prepares(7)) == [7, 7, 7]


def test_other_numbers_of_steps_end_all_with_the_difference() -> None:
    said = "The processes must have the same work, but number of steps is 8 in process 0, 7 in process 2."
    assert team_of(prepares(8), prepares(8), prepares(7)) == [said] * 3


def test_a_missing_file_of_one_ends_all_and_each_says_whose() -> None:
    told = team_of(prepares(8), fails)
    assert told == [
        "Process 1 of 2 cannot go on: photos lacks train/: put it there.",
        "photos lacks train/: put it there.",
    ]


def test_one_that_ends_before_it_has_prepared_is_not_waited_for() -> None:
    def stumble(team: DistributedContext) -> object:
        raise TrainingError("no such thing")

    assert team_of(prepares(8), stumble) == ["Process 1 of 2 has ended: no such thing", "no such thing"]


def test_the_first_decides_for_all() -> None:
    def decide(team: DistributedContext) -> str:
        return team.broadcast(lambda: f"decided by {team.name}")

    assert team_of(decide, decide) == ["decided by Process 0 of 2"] * 2


def test_only_the_first_leads() -> None:
    assert team_of(lambda team: team.is_main, lambda team: team.is_main) == [True, False]


def test_alone_nothing_changes() -> None:
    assert ALONE.is_main
    assert ALONE.prepare(lambda: 3, lambda made: pytest.fail("nobody asks")) == 3
    assert ALONE.broadcast(lambda: "so") == "so"
    with ALONE.fail_together(), ALONE.scope():
        pass
    assert ALONE.describe() == {}
