"""Candidates are timed one by one, once for all workers, and those that cannot run are left out."""

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.atomic_files import lock_exclusively
from service.errors import BrokenVersion
from service.loaded_models.engine_selection import EngineChoice, EngineChoices, FixedEngine, measure_candidates
from tests.unit.service.inference.test_engine_choice import CPU, OV, OV_BF16

NAMES = ["cpu float32", "openvino float32"]


class Clock:
    """A clock that running sessions advance."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class FakeSession:
    """A session whose runs take `run_s`. The first run takes longer."""

    path = Path("model.onnx")
    is_terminable = True

    def __init__(self, clock: Clock, run_s: float) -> None:
        self._clock, self._run_s = clock, run_s
        self.batch_sizes: list[int] = []

    def warm_up(self, batch_sizes: list[int], timeout_s: float) -> None:
        self._clock.now_s += 50 * self._run_s
        self.batch_sizes += batch_sizes

    def run(self, images: NDArray[np.uint8], options: Any = None) -> NDArray[np.float32]:
        self._clock.now_s += self._run_s
        self.batch_sizes.append(len(images))
        return np.zeros((len(images), 2), np.float32)


def measure_with(run_s_by_name: dict[str, float], opened: list[Any]) -> EngineChoice:
    clock = Clock()
    candidates = [CPU, OV, OV_BF16]

    def open_session(candidate: Any) -> Any:
        gc.collect()
        assert all(session() is None for session in opened), "the session before is still in memory"
        if candidate.name not in run_s_by_name:
            raise BrokenVersion(f"no {candidate.name}.")
        session = FakeSession(clock, run_s_by_name[candidate.name])
        opened.append(weakref.ref(session))
        return session

    return measure_candidates(candidates, open_session, (1, 1, 1), 8, 10.0, clock)


def test_the_fastest_run_of_each_counts_with_one_session_open_at_a_time() -> None:
    opened: list[Any] = []
    choice = measure_with({"cpu float32": 0.08, "openvino float32": 0.06, "openvino bfloat16": 0.01}, opened)
    assert len(opened) == 3
    assert choice == EngineChoice(
        name="openvino bfloat16",
        batch_size=8,
        times_ms={"cpu float32": 80.0, "openvino float32": 60.0, "openvino bfloat16": 10.0},
    )


def test_a_candidate_that_cannot_run_is_left_out_with_the_reason() -> None:
    choice = measure_with({"cpu float32": 0.08, "openvino bfloat16": 0.07}, [])
    assert choice.name == "cpu float32"
    assert choice.failures == {"openvino float32": "no openvino float32."}


def test_a_graph_that_no_engine_runs_is_broken_for_the_reason_of_the_first() -> None:
    with pytest.raises(BrokenVersion, match="no cpu float32"):
        measure_with({}, [])


class HangingSession(FakeSession):
    """Never ends its first timed run until it is released; `terminate` has no effect, as with OpenVINO."""

    is_terminable = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, 0.01)
        self.is_released = threading.Event()

    def run(self, images: NDArray[np.uint8], options: Any = None) -> NDArray[np.float32]:
        self.is_released.wait(60)
        return super().run(images, options)


def test_a_candidate_that_hangs_is_left_out_although_nothing_ends_its_run() -> None:
    clock = Clock()
    hanging = HangingSession(clock)
    sessions: dict[str, Any] = {CPU.name: FakeSession(clock, 0.08), OV.name: hanging}
    choice = measure_candidates([CPU, OV], lambda one: sessions[one.name], (1, 1, 1), 8, 0.01, clock)
    assert choice.name == "cpu float32"
    assert choice.failures == {
        "openvino float32": "model.onnx did not end its warm-up with a batch of 8 within 0.01 s."
    }
    hanging.is_released.set()


def refuse() -> EngineChoice:
    raise AssertionError("this was measured before")


def answer(name: str) -> Callable[[], EngineChoice]:
    return lambda: EngineChoice(name=name, batch_size=8, times_ms={name: 1.0})


def test_workers_and_their_successors_take_the_choice_of_the_first(tmp_path: Path) -> None:
    first = EngineChoices(tmp_path / "engines")
    choice = first.get("key", NAMES, answer("openvino float32"))
    assert choice.name == "openvino float32"
    assert first.get("key", NAMES, refuse) == choice
    assert EngineChoices(tmp_path / "engines").get("key", NAMES, refuse) == choice
    assert EngineChoices(tmp_path / "engines").get("other", NAMES, answer("cpu float32")).name == "cpu float32"


@pytest.mark.parametrize("text", [b"", b"{", b'{"name": 1}', b'{"name": "openvino int8"}'])
def test_a_choice_that_cannot_be_used_is_measured_again(tmp_path: Path, text: bytes) -> None:
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / "key.json").write_bytes(text)
    assert EngineChoices(folder).get("key", NAMES, answer("cpu float32")).name == "cpu float32"
    assert EngineChoices(folder).get("key", NAMES, refuse).name == "cpu float32"


def test_one_process_measures_for_itself_once() -> None:
    choices = EngineChoices()
    choices.get("key", NAMES, answer("cpu float32"))
    assert choices.get("key", NAMES, refuse).name == "cpu float32"
    assert EngineChoices().get("key", NAMES, answer("openvino float32")).name == "openvino float32"


def test_a_measurement_that_fails_leaves_the_others_free_to_try(tmp_path: Path) -> None:
    def fail() -> EngineChoice:
        raise BrokenVersion("no engine runs it.")

    choices = EngineChoices(tmp_path / "engines")
    with pytest.raises(BrokenVersion):
        choices.get("key", NAMES, fail)
    assert EngineChoices(tmp_path / "engines").get("key", NAMES, answer("cpu float32")).name == "cpu float32"


def test_a_resumed_job_gets_its_engine_or_an_error() -> None:
    assert FixedEngine("openvino float32").get("key", NAMES, refuse).name == "openvino float32"
    with pytest.raises(BrokenVersion, match="cannot run 'openvino bfloat16'; it can run cpu float32 and openvino"):
        FixedEngine("openvino bfloat16").get("key", NAMES, refuse)


def test_a_worker_that_hangs_in_its_measurement_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, clock = tmp_path / "engines", Clock()
    folder.mkdir()

    def sleep(seconds: float) -> None:
        clock.now_s += seconds

    with (folder / "lock").open("w") as held:
        lock_exclusively(held)
        waiting = EngineChoices(folder, max_wait_s=660, clock=clock, sleep=sleep)
        assert waiting.get("key", NAMES, answer("cpu float32")).name == "cpu float32"
    assert clock.now_s == pytest.approx(660, abs=1)
    (message,) = caplog.messages
    assert message.startswith("another worker has not finished measuring engines")


def test_a_worker_takes_the_choice_of_the_one_that_it_waited_for(tmp_path: Path) -> None:
    folder, clock = tmp_path / "engines", Clock()
    folder.mkdir()
    held = (folder / "lock").open("w")
    lock_exclusively(held)

    def sleep(seconds: float) -> None:
        clock.now_s += seconds
        choice = EngineChoice(name="openvino float32")
        (folder / "key.json").write_text(choice.model_dump_json())
        held.close()

    waiting = EngineChoices(folder, max_wait_s=660, clock=clock, sleep=sleep)
    assert waiting.get("key", NAMES, refuse).name == "openvino float32"
