"""What each version has done, as Prometheus reads it: the same sums as the V2 statistics."""

from prometheus_client.core import Sample

from service.observability.multiprocess import key_of
from service.observability.version_metrics import version_metrics
from service.observability.version_stats import Statistics


def samples(counted: dict[str, Statistics]) -> list[Sample]:
    return [sample for family in version_metrics(counted) for sample in family.samples]


def value(counted: dict[str, Statistics], name: str, **labels: str) -> float:
    (found,) = (s.value for s in samples(counted) if s.name == name and s.labels == labels)
    return found


def test_each_version_has_its_own_counters() -> None:
    one, two = Statistics(), Statistics()
    one.add_success(1.0, decode_s=0.1, queue_s=0.2, compute_s=0.3, encode_s=0.05)
    one.add_batch(8, 0.3)
    one.add_batch(8, 0.3)
    one.add_batch(1, 0.1)
    two.fail.add(0.5)
    counted = {key_of("digits", "1"): one, key_of("digits", "2"): two}
    first, second = {"model": "digits", "version": "1"}, {"model": "digits", "version": "2"}
    assert value(counted, "convoy_version_images_total", **first) == 17
    assert value(counted, "convoy_version_batches_total", **first) == 3
    assert value(counted, "convoy_version_requests_total", **first, outcome="success") == 1
    assert value(counted, "convoy_version_requests_total", **first, outcome="failure") == 0
    assert value(counted, "convoy_version_requests_total", **second, outcome="failure") == 1
    seconds = {"request": 1.0, "decode": 0.1, "queue": 0.2, "compute": 0.3, "encode": 0.05}
    for stage, expected in seconds.items():
        assert value(counted, "convoy_version_seconds_total", **first, stage=stage) == expected
        assert value(counted, "convoy_version_seconds_total", **second, stage=stage) == 0


def test_names_keep_prometheus_customs() -> None:
    for sample in samples({key_of("digits", "1"): Statistics()}):
        assert sample.name.startswith("convoy_version_")
        assert sample.name.endswith("_total")


def test_without_versions_there_is_nothing_to_show() -> None:
    assert samples({}) == []
