"""Every image belongs to exactly one shard, which a flag or Kubernetes selects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch_jobs.errors import CannotStartJob
from service.batch_jobs.sharding import WHOLE_JOB, Shard, resolve_shard


@given(items=st.integers(0, 50), count=st.integers(1, 12))
def test_all_shards_together_have_each_thing_once(items: int, count: int) -> None:
    shards = [Shard(number, count).select(range(items)) for number in range(1, count + 1)]
    assert sorted(item for shard in shards for item in shard) == list(range(items))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_the_flag_counts_from_one_and_kubernetes_from_zero() -> None:
    assert resolve_shard("3/8", {}) == Shard(3, 8)
    assert resolve_shard(None, {"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "8"}) == Shard(3, 8)
    assert resolve_shard(None, {}) == WHOLE_JOB


def test_the_flag_overrides_the_environment() -> None:
    assert resolve_shard("1/2", {"JOB_COMPLETION_INDEX": "7", "JOB_COMPLETIONS": "8"}) == Shard(1, 2)


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "3/", "/8", "three/8", "-1/8", "1/0", "1/8/2", "²/8", ""])
def test_an_invalid_shard_is_reported(text: str) -> None:
    with pytest.raises(CannotStartJob, match="--shard is"):
        resolve_shard(text, {})


@pytest.mark.parametrize(
    "environ",
    [
        {"JOB_COMPLETION_INDEX": "0"},
        {"JOB_COMPLETIONS": "8"},
        {"JOB_COMPLETION_INDEX": "8", "JOB_COMPLETIONS": "8"},
        {"JOB_COMPLETION_INDEX": "x", "JOB_COMPLETIONS": "8"},
    ],
)
def test_a_job_with_only_one_shard_variable_is_rejected(environ: dict[str, str]) -> None:
    with pytest.raises(CannotStartJob, match="JOB_COMPLETION_INDEX is"):
        resolve_shard(None, environ)
