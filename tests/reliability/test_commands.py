"""Short runs of the tests.reliability commands: the requirements hold for some seconds, and violations are detected."""

import pytest

from tests.reliability import memory_growth, soak
from tests.reliability.buckets import many_versions
from tests.reliability.lost_requests import find_lost_requests
from tests.reliability.open_loop_load import CONNECTIONS

pytestmark = pytest.mark.slow


def test_no_request_is_lost_while_a_worker_is_killed_and_versions_change() -> None:
    results = find_lost_requests.measure(4000, (16, 48), min_events=4)
    assert find_lost_requests.problems_of(results) == []
    assert results.request_log.right.total() > 2000
    assert len(results.request_log.right) == 2, "two versions answered"
    events = {"version published", "worker killed", "version rolled back", "worker restarted"}
    assert events <= results.fault_injector.events.keys()
    assert results.request_log.cut <= 48, "no more than one request of each connection"


def test_a_soak_of_some_seconds_is_answered_correctly_and_leaves_nothing_open() -> None:
    results = soak.soak(seconds=10, requests_per_s=100, publish_every_s=3)
    assert results.statistics.problems == []
    assert sum(results.statistics.by_kind.values()) == 1000
    assert results.statistics.by_kind.keys() > {"image", "form of JPEG", "v2 json", "v2 binary", "question"}
    assert results.rounds.total() >= 1
    assert results.failed_requests > 0, "the bucket failed meanwhile"
    assert results.answering == results.newest
    assert results.newest.version == results.rounds.total() + 1
    assert len(results.workers()) == soak.WORKERS
    assert soak.section(results, [], "soak.svg").startswith("**Nothing grew")
    first, last = results.thirds(soak.TOTALS["descriptors"])
    assert abs(last - first) <= CONNECTIONS // 4


def test_a_service_with_many_models_starts_from_a_bucket_and_a_folder_and_stops_in_time() -> None:
    starts = many_versions.measure(20)
    assert [start.models_from for start in starts] == ["a folder", "a bucket, empty cache", "a bucket, cached"]
    assert many_versions.problems_of(starts) == []
    assert many_versions.section(starts, [], 20).startswith("**After every SIGTERM the service exited with 0")


def test_memory_is_read_after_every_part() -> None:
    results = memory_growth.measure(400)
    assert memory_growth.section(results).startswith("**")
    assert results.wrong == []
    assert [requests for requests, _ in results.resident_bytes] == list(range(0, 401, 40))
    assert all(len(workers) == memory_growth.WORKERS and min(workers) > 30e6 for _, workers in results.resident_bytes)
