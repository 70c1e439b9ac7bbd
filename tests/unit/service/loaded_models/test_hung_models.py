"""A model counts as hung after one request timeout, and as stuck after several. No other model counts as hung or
stuck."""

import asyncio
from pathlib import Path

import pytest

from service.inference.batch import Batch
from service.loaded_models.registry import MIN_STUCK_S, Registry
from service.model_store.desired_state import DesiredState
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.model_versions import write_version
from tests.unit.service.batching import ManualClock


def reasons_after(folder: Path, run_s: float, expected_s: float = 0.0, **settings: int) -> list[dict[str, str]]:
    """Returns the hung and the stuck models once a batch has run for `run_s`."""
    write_version(folder, "a")

    async def test() -> list[dict[str, str]]:
        registry, clock = Registry(Repository(folder), Settings(**settings), Metrics()), ManualClock()
        await registry.reconcile(DesiredState())
        batcher = registry.get("a").batcher
        batcher._clock = clock
        batcher._running.append(Batch([], clock(), expected_s))
        clock.now_s += run_s
        reasons = [registry.hung_models(), registry.stuck_models()]
        batcher._running.clear()
        await registry.close()
        return reasons

    return asyncio.run(test())


@pytest.mark.parametrize(
    ("run_s", "is_hung", "is_stuck"),
    [(9.9, False, False), (10.1, True, False), (29.9, True, False), (30.1, True, True)],
)
def test_a_run_hangs_after_one_timeout_and_is_stuck_after_as_many_as_are_set(
    tmp_path: Path, run_s: float, is_hung: bool, is_stuck: bool
) -> None:
    hung, stuck = reasons_after(tmp_path, run_s, request_timeout_ms=10_000, max_run_timeouts=3)
    assert (bool(hung), bool(stuck)) == (is_hung, is_stuck)
    assert not stuck or "Version 1 has been running one batch for more than 30 s" in stuck["a"]


def test_without_a_number_of_timeouts_no_model_is_ever_stuck(tmp_path: Path) -> None:
    hung, stuck = reasons_after(tmp_path, 1e6, max_run_timeouts=0)
    assert (list(hung), stuck) == (["a"], {})


@pytest.mark.parametrize(("run_s", "is_stuck"), [(MIN_STUCK_S - 0.1, False), (MIN_STUCK_S + 0.1, True)])
def test_a_short_request_timeout_makes_no_model_stuck_at_once(tmp_path: Path, run_s: float, is_stuck: bool) -> None:
    hung, stuck = reasons_after(tmp_path, run_s, request_timeout_ms=50, max_run_timeouts=2)
    assert (bool(hung), bool(stuck)) == (True, is_stuck)


@pytest.mark.parametrize(("run_s", "is_stuck"), [(119.0, False), (121.0, True)])
def test_a_large_batch_is_stuck_only_after_a_multiple_of_its_expected_time(
    tmp_path: Path, run_s: float, is_stuck: bool
) -> None:
    _, stuck = reasons_after(tmp_path, run_s, expected_s=20.0, request_timeout_ms=10_000, max_run_timeouts=3)
    assert bool(stuck) == is_stuck


def test_a_gpu_that_has_failed_is_left_to_a_new_process(tmp_path: Path) -> None:
    write_version(tmp_path, "a")
    registry = Registry(Repository(tmp_path), Settings(max_run_timeouts=0), Metrics())

    async def test() -> None:
        await registry.reconcile(DesiredState())
        assert (registry.is_unavailable(), registry.stuck_models()) == (False, {})
        registry.get("a").session.lost_gpu = "CUDA failure 719: unspecified launch failure"
        reasons = {"a": "cpu has failed: CUDA failure 719: unspecified launch failure."}
        assert registry.stuck_models() == registry.not_ready_reasons() == reasons
        assert registry.is_unavailable()
        await registry.close()

    asyncio.run(test())
