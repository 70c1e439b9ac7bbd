"""TensorRT's engines are built once per graph, GPU and set of libraries, and are stored atomically."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.errors import BrokenVersion
from service.inference import tensorrt
from service.inference.cuda_devices import Gpu
from service.inference.tensorrt import BUILDING_PREFIX, EngineCache, environment_name, profile_options

SHAPE = (32, 32, 3)
PROFILE = profile_options(SHAPE, (1, 2, 4, 8))
SHA256 = "ab" * 32


class FakeTensorRT:
    """Builds missing engines like the provider: it writes an engine file and extends the timing cache."""

    def __init__(self, fails_after_writing: bool = False, writes_engine: bool = True) -> None:
        self.builds = 0
        self.options: list[dict[str, str]] = []
        self._fails_after_writing = fails_after_writing
        self._writes_engine = writes_engine

    def create(self, options: Mapping[str, str]) -> str:
        """Creates a session, represented by the content of its engine."""
        self.options.append(dict(options))
        if "trt_engine_cache_path" not in options:
            self.builds += 1
            return "whole"
        engine = Path(options["trt_engine_cache_path"]) / "graph_sm90.engine"
        timings = Path(options["trt_timing_cache_path"]) / "sm90.timing"
        if engine.exists():
            if engine.read_text() != "whole":
                raise BrokenVersion("It cannot be loaded.", library_text="could not deserialize engine from cache: x")
            return "whole"
        self.builds += 1
        timings.write_text((timings.read_text() if timings.exists() else "") + "t")
        if self._writes_engine:
            engine.write_text("half" if self._fails_after_writing else "whole")
        if self._fails_after_writing:
            raise KeyboardInterrupt
        return "whole"


def cache(root: Path, environment: str = "h200", sha256: str = SHA256) -> EngineCache:
    return EngineCache(root, environment, sha256, PROFILE)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_the_profile_spans_all_buckets() -> None:
    assert PROFILE == {
        "trt_profile_min_shapes": "image:1x32x32x3",
        "trt_profile_opt_shapes": "image:8x32x32x3",
        "trt_profile_max_shapes": "image:8x32x32x3",
    }


def test_a_second_start_builds_nothing(tmp_path: Path) -> None:
    fake = FakeTensorRT()
    assert [cache(tmp_path).create(fake.create) for _ in range(3)] == ["whole"] * 3
    assert fake.builds == 1
    assert files(tmp_path) == {f"h200/{SHA256[:32]}-8x32x32x3/graph_sm90.engine", "h200/timings/sm90.timing"}
    for options in fake.options:
        assert PROFILE.items() <= options.items()
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"


@pytest.mark.parametrize(
    "other",
    [
        {"environment": "a10"},
        {"sha256": "cd" * 32},
    ],
)
def test_an_engine_is_of_one_graph_and_one_environment(tmp_path: Path, other: dict[str, str]) -> None:
    fake = FakeTensorRT()
    for one in (cache(tmp_path), cache(tmp_path, **other), cache(tmp_path)):
        one.create(fake.create)
    assert fake.builds == 2


def test_another_largest_batch_has_an_engine_of_its_own(tmp_path: Path) -> None:
    fake = FakeTensorRT()
    for largest in (8, 16):
        EngineCache(tmp_path, "h200", SHA256, profile_options(SHAPE, (1, largest))).create(fake.create)
    assert fake.builds == 2


def test_graphs_share_their_timings(tmp_path: Path) -> None:
    fake = FakeTensorRT()
    cache(tmp_path).create(fake.create)
    cache(tmp_path, sha256="cd" * 32).create(fake.create)
    assert (tmp_path / "h200/timings/sm90.timing").read_text() == "tt"


def test_a_build_that_is_cut_off_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path).create(FakeTensorRT(fails_after_writing=True).create)
    assert files(tmp_path) == set()
    fake = FakeTensorRT()
    assert cache(tmp_path).create(fake.create) == "whole"
    assert fake.builds == 1


def test_old_files_of_a_killed_process_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (tmp_path / "h200" / f"{BUILDING_PREFIX}{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    cache(tmp_path).create(FakeTensorRT().create)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_kept_engine_that_cannot_be_read_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeTensorRT()
    cache(tmp_path).create(fake.create)
    (engine,) = tmp_path.rglob("*.engine")
    engine.write_text("half")
    assert cache(tmp_path).create(fake.create) == "whole"
    assert engine.read_text() == "whole"
    assert fake.builds == 2
    assert "TensorRT's engine is discarded" in caplog.text


def test_another_error_keeps_the_engine(tmp_path: Path) -> None:
    cache(tmp_path).create(FakeTensorRT().create)

    def fail(options: Mapping[str, str]) -> str:
        raise BrokenVersion("It cannot be loaded.", library_text="CUDA failure 2: out of memory")

    with pytest.raises(BrokenVersion, match="cannot be loaded"):
        cache(tmp_path).create(fail)
    assert len(list(tmp_path.rglob("*.engine"))) == 1


def test_the_first_of_two_that_build_at_once_is_kept(tmp_path: Path) -> None:
    first, second = FakeTensorRT(), FakeTensorRT()

    def build_after_another(options: Mapping[str, str]) -> str:
        cache(tmp_path).create(first.create)
        return second.create(options)

    assert cache(tmp_path).create(build_after_another) == "whole"
    assert (first.builds, second.builds) == (1, 1)
    assert len(list(tmp_path.rglob("*.engine"))) == 1
    assert not list(tmp_path.rglob(f"{BUILDING_PREFIX}*"))


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    fake = FakeTensorRT()
    assert cache(tmp_path / "file").create(fake.create) == "whole"
    assert fake.options == [PROFILE]
    assert "TensorRT's engines cannot be kept: each start builds them" in caplog.text


def test_without_an_engine_nothing_is_cached(tmp_path: Path) -> None:
    """TensorRT has rejected every node of the graph. The session's check of its nodes reports this."""
    fake = FakeTensorRT(writes_engine=False)
    for _ in range(2):
        cache(tmp_path).create(fake.create)
    assert fake.builds == 2


def test_the_environment_names_all_that_an_engine_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "DRIVER_VERSION", tmp_path / "version")
    gpu = Gpu(0, "NVIDIA H200", "9.0")
    assert environment_name(gpu, "1.31.1", "101500") == (
        "NVIDIA-H200-sm9.0-driverunknown-onnxruntime1.31.1-tensorrt101500"
    )
    (tmp_path / "version").write_text("580.95.05\n")
    assert "driver580.95.05" in environment_name(gpu, "1.31.1", "101500")


def test_without_tensorrts_library_the_linker_names_it(tmp_path: Path) -> None:
    (tmp_path / "provider.so").write_bytes(b"\0libnvinfer.so.99\0")
    with pytest.raises(OSError, match=r"libnvinfer\.so\.99"):
        tensorrt.tensorrt_version(tmp_path / "provider.so")
