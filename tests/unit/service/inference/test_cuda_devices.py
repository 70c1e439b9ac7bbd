"""The error for a missing or failing GPU lists the available GPUs, tested with a fake driver."""

import ctypes
from typing import Any

import pytest

from service.inference import cuda_devices
from service.inference.cuda_devices import Gpu, UnusableGpu, check_gpu_works, check_gpus, list_gpus, load_driver
from tests.support.fake_gpus.fake_driver import FakeDriver

H200 = Gpu(0, "NVIDIA H200", "9.0")
A10 = Gpu(1, "NVIDIA A10", "8.6")


def test_gpus_are_those_of_the_driver() -> None:
    assert list_gpus(FakeDriver([H200, A10])) == [H200, A10]
    assert list_gpus(FakeDriver([])) == []


def test_an_index_that_does_not_exist_names_those_that_do() -> None:
    check_gpus([1, 0], [H200, A10])
    with pytest.raises(UnusableGpu) as raised:
        check_gpus([0, 2], [H200, A10])
    assert raised.value.message == "There is no GPU 2; CUDA reports 0 (NVIDIA H200), 1 (NVIDIA A10)."
    assert "CUDA_VISIBLE_DEVICES" in raised.value.hint
    with pytest.raises(UnusableGpu, match="CUDA reports none"):
        check_gpus([0], [])


def test_a_gpu_that_has_failed_is_not_used() -> None:
    driver = FakeDriver([H200, A10], failed={1})
    check_gpu_works(driver, 0)
    with pytest.raises(UnusableGpu, match="GPU 1 cannot be used: CUDA error 999"):
        check_gpu_works(driver, 1)


def test_without_a_driver_the_error_of_the_linker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_devices, "DRIVER_LIBRARY", "libnone.so.1")
    with pytest.raises(
        UnusableGpu, match=r"No GPU can be used: libnone\.so\.1: cannot open shared object file"
    ) as raised:
        load_driver()
    assert "CONVOY_DEVICE=cpu" in raised.value.hint


@pytest.mark.parametrize(("code", "is_error"), [(0, False), (100, False), (3, True), (802, True)])
def test_a_driver_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int, is_error: bool) -> None:
    """Without a GPU the driver returns the code 100, which counts as an empty list."""
    driver: Any = FakeDriver([], init_code=code)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    if not is_error:
        assert load_driver() is driver
        return
    with pytest.raises(UnusableGpu, match=f"does not start: CUDA error {code}"):
        load_driver()
