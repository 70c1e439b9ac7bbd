"""The machine is read off the system's files as they really look, and a missing one is no error."""

from pathlib import Path

import pytest

from service.hardware import cpu_flags, has_nvidia_gpu

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


def test_a_system_that_does_not_tell_has_none(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "cpuinfo") == frozenset()


@pytest.mark.parametrize(
    ("device", "visible", "found"),
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
def test_a_gpu_shows_as_a_device(tmp_path: Path, device: str, visible: str | None, found: bool) -> None:
    (tmp_path / device).touch()
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert has_nvidia_gpu(tmp_path, environ) is found
