"""Worker status: live and current workers, and totals that include each dead worker exactly once."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.observability.metrics import MAX_AGGREGATED, Metrics
from service.observability.multiprocess import (
    add_families,
    families_to_metrics,
    metrics_to_families,
    version_key,
    without_gauges,
)
from service.observability.version_stats import DurationTotal, VersionStats
from service.workers.worker_status import WorkerStatusStore, WorkerTotals

COUNTED = '["convoy_requests_total",{"code":"200","route":"r"}]'


def totals_with(requests: int, queued: int = 0) -> WorkerTotals:
    """Returns the totals of a worker with this many answered requests and queued images."""
    metrics = Metrics()
    metrics.requests.labels("r", 200).inc(requests)
    metrics.queue_images.labels("m").set(queued)
    statistics = VersionStats()
    for _ in range(requests):
        statistics.add_success(0.5, 0.1, 0.1, 0.1, 0.1)
        statistics.add_batch(2, 0.25)
    return WorkerTotals(metrics.families(), {version_key("m", "1"): statistics})


def requests_in(totals: WorkerTotals) -> float:
    return totals.families.get("convoy_requests", {"samples": {}})["samples"].get(COUNTED, 0.0)


def queued_in(totals: WorkerTotals) -> float:
    return totals.families.get("convoy_queue_images", {"samples": {}})["samples"].get(
        '["convoy_queue_images",{"model":"m"}]', 0.0
    )


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def publish_as(status_store: WorkerStatusStore, folder: Path, worker_id: int, pid: int, totals: WorkerTotals) -> None:
    """Writes the totals of another process."""
    status_store.publish_totals(totals)
    (folder / f"totals-0-{os.getpid()}.json").rename(folder / f"totals-{worker_id}-{pid}.json")


def test_a_status_is_seen_until_its_worker_is_silent_or_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status_store = WorkerStatusStore(tmp_path, 0, 2)
    assert status_store.statuses() == [None, None]
    status_store.publish_status(3, {"m": "It is loading."})
    (status, missing) = status_store.statuses()
    assert missing is None
    assert status is not None
    assert (status.generation, status.reasons, status.pid) == (3, {"m": "It is loading."}, os.getpid())
    monkeypatch.setattr("service.workers.worker_status.MAX_SILENCE_S", 0.0)
    assert status_store.statuses() == [None, None]


def test_a_worker_has_loaded_its_models_once_it_has_applied_a_state(tmp_path: Path) -> None:
    status_store = WorkerStatusStore(tmp_path, 1, 2)
    assert not status_store.has_loaded_models(1, os.getpid())
    status_store.publish_status(-1, {"service": "Models are loading."})
    assert not status_store.has_loaded_models(1, os.getpid())
    status_store.publish_status(0, {})
    assert status_store.has_loaded_models(1, os.getpid())
    assert not status_store.has_loaded_models(1, dead_pid()), "the status is of another process"
    assert not status_store.has_loaded_models(0, os.getpid())


def test_totals_of_live_and_dead_workers_are_added_gauges_of_live_ones_only(tmp_path: Path) -> None:
    own_store, other_store = WorkerStatusStore(tmp_path, 0, 2), WorkerStatusStore(tmp_path, 1, 2)
    publish_as(own_store, tmp_path, 1, dead_pid(), totals_with(5, queued=7))
    other_store.publish_status(0, {})
    other_store.publish_totals(totals_with(2, queued=3))
    total = own_store.totals_of_others()
    assert requests_in(total) == 7
    assert queued_in(total) == 3
    assert total.stats[version_key("m", "1")].success == DurationTotal(7, pytest.approx(3.5))
    assert total.stats[version_key("m", "1")].batches == {2: DurationTotal(7, pytest.approx(1.75))}


def test_absorbing_dead_workers_changes_no_total(tmp_path: Path) -> None:
    status_store = WorkerStatusStore(tmp_path, 0, 2)
    pids = [dead_pid() for _ in range(3)]
    for pid in pids:
        publish_as(status_store, tmp_path, 1, pid, totals_with(10))
    for pid in pids:
        status_store.absorb_dead_worker(1, pid)
        assert requests_in(status_store.totals_of_others()) == 30
    assert [path.name for path in tmp_path.glob("totals-*")] == []
    status_store.absorb_dead_worker(1, dead_pid())  # a worker that never wrote totals
    assert requests_in(status_store.totals_of_others()) == 30


def test_a_worker_absorbed_between_two_reads_is_not_counted_twice(tmp_path: Path) -> None:
    status_store, pid = WorkerStatusStore(tmp_path, 0, 2), dead_pid()
    publish_as(status_store, tmp_path, 1, pid, totals_with(10))
    kept = (tmp_path / f"totals-1-{pid}.json").read_bytes()
    status_store.absorb_dead_worker(1, pid)
    (tmp_path / f"totals-1-{pid}.json").write_bytes(kept)  # as read just before
    assert requests_in(status_store.totals_of_others()) == 10


def test_a_single_worker_writes_no_file_and_knows_its_own_status(tmp_path: Path) -> None:
    status_store = WorkerStatusStore(tmp_path)
    status_store.publish_totals(totals_with(1))
    status_store.publish_status(3, {"m": "It is loading."})
    assert [status and (status.generation, status.reasons) for status in status_store.statuses()] == [
        (3, {"m": "It is loading."})
    ]
    assert list(tmp_path.iterdir()) == []


def test_families_survive_the_way_to_json_and_back() -> None:
    metrics = Metrics()
    metrics.request_s.labels("r").observe(0.2)
    families = metrics.families()
    assert metrics_to_families(families_to_metrics(families), MAX_AGGREGATED) == families
    assert "convoy_requests_total" in Metrics().to_text(add_families(families, totals_with(1).families)).decode()
    assert all(family["type"] != "gauge" for family in without_gauges(families).values())


def test_loaded_versions_are_not_summed_over_workers() -> None:
    one, other = Metrics(), Metrics()
    one.loaded_versions.labels("m").set(2)
    other.loaded_versions.labels("m").set(1)  # this worker is about to load the second version
    one.open_requests, other.open_requests = 3, 4
    text = Metrics().to_text(add_families(one.families(), other.families())).decode()
    assert 'convoy_loaded_versions{model="m"} 2.0' in text
    assert "convoy_requests_in_flight 7.0" in text


def test_every_refresh_request_is_seen_by_all_workers(tmp_path: Path) -> None:
    own_store, other_store = WorkerStatusStore(tmp_path, 0, 2), WorkerStatusStore(tmp_path, 1, 2)
    assert other_store.refresh_request() == 0
    requests = [own_store.request_refresh() for _ in range(3)]
    assert other_store.refresh_request() == own_store.refresh_request() == requests[-1]
    assert requests == sorted(set(requests))
    other_store.publish_status(0, {}, answered_request=requests[-1])
    assert [status and status.answered_request for status in own_store.statuses()] == [None, requests[-1]]


def test_a_full_disk_stops_no_worker_is_logged_once_and_loses_no_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    status_store, pid = WorkerStatusStore(tmp_path, 0, 2), dead_pid()
    publish_as(status_store, tmp_path, 1, pid, totals_with(10))

    def raise_disk_full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with caplog.at_level(logging.INFO, logger="convoy"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", raise_disk_full)
            status_store.publish_status(0, {})
            status_store.publish_totals(totals_with(1))
            status_store.absorb_dead_worker(1, pid)
            assert requests_in(status_store.totals_of_others()) == 10
        status_store.absorb_dead_worker(1, pid)
    assert requests_in(status_store.totals_of_others()) == 10
    assert list(tmp_path.glob("totals-*")) == []
    messages = ["worker status cannot be written", "worker status is written again"]
    assert [record.message for record in caplog.records if record.name == "convoy"] == messages
