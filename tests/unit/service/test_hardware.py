"""Cores and free memory are those of the container. CPU flags and GPUs are read from files as Linux writes them."""

import os
from pathlib import Path

import pytest

from service.hardware import (
    FALLBACK_MEMORY_BYTES,
    cpu_flags,
    free_memory_bytes,
    has_nvidia_gpu,
    memory_limit_bytes,
    processor_name,
    usable_cores,
)

X86 = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx512_vnni\nvmx flags\t: vnmi\n\nprocessor\t: 1\n"
)
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "flags"),
    [(X86, {"fpu", "sse2", "avx512_vnni"}), (ARM, {"fp", "asimd", "asimddp"}), ("", set()), ("flags\n", set())],
)
def test_the_processors_instruction_sets(tmp_path: Path, text: str, flags: set[str]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_flags(tmp_path / "cpuinfo") == flags


def test_a_system_that_does_not_report_it_has_none(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "cpuinfo") == frozenset()


@pytest.mark.parametrize(
    ("device", "visible_devices", "found"),
    [
        ("nvidia0", None, True),
        ("nvidia12", "1", True),
        ("dxg", None, True),
        ("nvidia0", "", False),
        ("nvidia0", "-1", False),
        ("nvidiactl", None, False),
        ("null", None, False),
    ],
)
def test_a_gpu_shows_as_a_device(tmp_path: Path, device: str, visible_devices: str | None, found: bool) -> None:
    (tmp_path / device).touch()
    environ = {} if visible_devices is None else {"CUDA_VISIBLE_DEVICES": visible_devices}
    assert has_nvidia_gpu(tmp_path, environ) is found


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def v2(folder: Path, content: str) -> Path:
    (folder / "cpu.max").write_text(content)
    return folder


def v1(folder: Path, quota: str, period: str) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period)
    return folder


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("299999 100000\n", 2),
        ("10000 100000\n", 1),
        ("50000 25000\n", 2),
        ("6400000 100000\n", 8),
        ("max 100000\n", 8),
    ],
)
def test_quota_of_cgroup_v2(tmp_path: Path, content: str, cores: int) -> None:
    assert usable_cores(v2(tmp_path, content)) == cores


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [("400000\n", "100000\n", 4), ("350000\n", "100000\n", 3), ("1000\n", "100000\n", 1), ("-1\n", "100000\n", 8)],
)
def test_quota_of_cgroup_v1(tmp_path: Path, quota: str, period: str, cores: int) -> None:
    assert usable_cores(v1(tmp_path, quota, period)) == cores


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize("content", ["", "\n", "max", "lots 100000", "200000 0", "200000 100000 7", "\0"])
def test_a_damaged_file_limits_nothing(tmp_path: Path, content: str) -> None:
    assert usable_cores(v2(tmp_path, content)) == 8
    assert usable_cores(v1(tmp_path, content, "100000")) == 8


@pytest.mark.usefixtures("eight_cores")
def test_no_cgroup_limits_nothing(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_the_affinity_mask_limits(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores(tmp_path) == len(before)


@pytest.mark.parametrize("count", [3, None])
def test_without_affinity_masks_the_hosts_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores(tmp_path) == (count or 1)


def test_this_machine_has_a_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


MEMORY_FILES = {
    2: ("memory.max", "memory.current"),
    1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
}


def write_memory(
    folder: Path, available_kb: int | None, limit: str | None, used: int, version: int
) -> tuple[Path, Path]:
    """Writes Linux's files for a machine with 2 MB and for its container with this version of cgroups."""
    if available_kb is not None:
        (folder / "meminfo").write_text(f"MemTotal: 2000 kB\nMemAvailable: {available_kb} kB\n")
    if limit is not None:
        for file, value in zip(MEMORY_FILES[version], (limit, used), strict=True):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(f"{value}\n")
    return folder / "meminfo", folder


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("available_kb", "limit", "used", "free"),
    [
        (1000, None, 0, 1_024_000),
        (1000, "max", 5, 1_024_000),
        (1000, "9223372036854771712", 5, 1_024_000),  # no limit in cgroup v1
        (1000, "300000", 100_000, 200_000),
        (1000, "300000", 400_000, 0),
        (1, "300000", 0, 1024),
        (None, None, 0, FALLBACK_MEMORY_BYTES),
    ],
)
def test_free_memory_is_the_smaller_of_the_machines_and_the_containers(
    tmp_path: Path, available_kb: int | None, limit: str | None, used: int, free: int, version: int
) -> None:
    assert free_memory_bytes(*write_memory(tmp_path, available_kb, limit, used, version)) == free


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("available_kb", "limit", "total"),
    [
        (1000, None, 2_048_000),
        (1000, "max", 2_048_000),
        (1000, "9223372036854771712", 2_048_000),
        (1, "300000", 300_000),
        (None, "300000", 300_000),
        (None, None, FALLBACK_MEMORY_BYTES),
    ],
)
def test_the_memory_limit_is_the_containers_or_the_machines_memory(
    tmp_path: Path, available_kb: int | None, limit: str | None, total: int, version: int
) -> None:
    assert memory_limit_bytes(*write_memory(tmp_path, available_kb, limit, 0, version)) == total


@pytest.mark.parametrize(("text", "name"), [("model name\t: AMD EPYC\nflags\t: fpu\n", "AMD EPYC"), (ARM, "unknown")])
def test_the_processors_name(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_name(tmp_path / "cpuinfo") == name
    assert processor_name(tmp_path / "missing") == "unknown"
