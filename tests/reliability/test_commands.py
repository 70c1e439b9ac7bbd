"""The commands of tests.reliability in short: the promises hold for some seconds, and the tools can tell."""

import pytest

from tests.reliability import memory_growth, soak
from tests.reliability.lost_requests import find_lost_requests
from tests.reliability.open_loop_load import CONNECTIONS

pytestmark = pytest.mark.slow


def test_nothing_is_lost_while_a_worker_is_killed_and_versions_come_and_go() -> None:
    found = find_lost_requests.measure(4000, (16, 48), least_events=4)
    assert find_lost_requests.problems_of(found) == []
    assert found.ledger.right.total() > 2000
    assert len(found.ledger.right) == 2, "two versions answered"
    events = {"version published", "worker killed", "version rolled back", "worker restarted"}
    assert events <= found.trouble.happened.keys()
    assert found.ledger.cut <= 48, "no more than one request of each connection"


def test_a_soak_of_some_seconds_is_answered_rightly_and_opens_nothing_for_ever() -> None:
    found = soak.soak(seconds=10, requests_per_s=100, publish_every_s=3)
    assert found.driven.problems == []
    assert sum(found.driven.by_kind.values()) == 1000
    assert found.driven.by_kind.keys() > {"image", "form of JPEG", "v2 json", "v2 binary", "question"}
    assert found.published >= 1
    assert len(found.workers()) == soak.WORKERS
    assert soak.section(found, [], "soak.svg").startswith("**Nothing grew")
    first, last = found.thirds(soak.TOGETHER["descriptors"])
    assert abs(last - first) <= CONNECTIONS // 4


def test_memory_is_read_after_every_part() -> None:
    found = memory_growth.measure(400)
    assert memory_growth.section(found).startswith("**")
    assert found.wrong == []
    assert [requests for requests, _ in found.resident_bytes] == list(range(0, 401, 40))
    assert all(len(workers) == memory_growth.WORKERS and min(workers) > 30e6 for _, workers in found.resident_bytes)
