"""Complete jobs in this process: files, resuming after any stop, shards, and errors."""

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.batch_jobs import job as jobs
from service.batch_jobs.errors import CannotStartJob, JobInterrupted, OutputConflict
from service.batch_jobs.job import Job, fastest_batch_size, run_job
from service.batch_jobs.journal import Journal
from service.batch_jobs.output_files import OutputFiles
from service.batch_jobs.progress import Progress
from service.batch_jobs.sharding import WHOLE_JOB, Shard
from service.batch_jobs.summary import Report
from service.errors import BrokenVersion, ConvoyError, UnknownModel, UnknownVersion
from service.imaging.decode import decode
from service.inference.session import Session
from service.loaded_models import engine_selection
from service.model_store.manifest import read_manifest, write_manifest
from service.settings import Settings
from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import brittle_graph

IMAGES = 50
BROKEN = ["class-0/07.png", "class-1/13.png"]


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with a model (batches of eight) and 50 images in folders of its labels, two images damaged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "fastest_batch_size", lambda batch_ms: 8)  # otherwise it depends on measured times
    write_version(tmp_path / "models", "linear", 1)
    for index in range(IMAGES):
        path = tmp_path / f"photos/class-{index // 10}/{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(seed=index))
    for name in BROKEN:
        Path("photos", name).write_bytes(b"no image")
    return tmp_path


def classify(output: str = "r.jsonl", settings: dict[str, Any] | None = None, **changes: Any) -> Report:
    job = {"inputs": ("photos",), "model": "linear", "version": None, "top_k": 1, "shard": WHOLE_JOB, **changes}
    all_settings = Settings(max_batch_size=8, **settings or {})
    return run_job(Job(output=Path(output), **job), all_settings, io.StringIO(), thread_pool)


def thread_pool(workers: int) -> Executor:
    return ThreadPoolExecutor(workers)


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def files(path: str) -> list[str]:
    return [line["file"] for line in lines(path)]


ALL = [f"photos/class-{index // 10}/{index:02}.png" for index in range(IMAGES)]
GOOD = [name for name in ALL if name.removeprefix("photos/") not in BROKEN]


def test_every_image_is_in_the_results_or_among_the_errors(work_folder: Path) -> None:
    report = classify()
    assert files("r.jsonl") == GOOD
    assert files("r.jsonl.errors.jsonl") == [f"photos/{name}" for name in BROKEN]
    assert lines("r.jsonl.errors.jsonl")[0]["error"]["code"] == "bad_image"
    assert report.summary.class_counts.total() == len(GOOD)
    assert report.images == IMAGES
    assert sorted(path.name for path in work_folder.glob("r.*")) == [
        "r.jsonl",
        "r.jsonl.confusion.png",
        "r.jsonl.errors.jsonl",
        "r.jsonl.summary.json",
    ]


def test_results_equal_those_of_single_images(work_folder: Path) -> None:
    classify(top_k=4)
    folder = work_folder / "models/linear/1"
    manifest = read_manifest(folder)
    session = Session(folder / "model.onnx", manifest.input, manifest.classes, 1)
    for line in lines("r.jsonl")[::7]:
        pixels = decode(Path(line["file"]).read_bytes(), 1, 0, 10_000)
        expected = session.run(pixels[None])[0]
        probabilities = {prediction["index"]: prediction["probability"] for prediction in line["predictions"]}
        assert [probabilities[index] for index in range(4)] == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("batch_ms", "size"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 1.5, 4: 2.5, 8: 6.0}, 4),
        ({1: 1.0, 2: 1.9, 4: 3.7}, 4),
        ({1: 1.0, 2: 2.1, 4: 4.2}, 1),
    ],
)
def test_the_fastest_batch_is_that_with_the_most_images_a_second(batch_ms: dict[int, float], size: int) -> None:
    assert fastest_batch_size(batch_ms) == size


def test_the_summary_knows_how_many_were_right(work_folder: Path) -> None:
    report = classify()
    summary = json.loads(Path("r.jsonl.summary.json").read_text())
    # The name of the fifth folder is none of the four labels.
    named = [line for line in lines("r.jsonl") if "expected" in line]
    assert len(named) == summary["accuracy"]["images"] == 38
    right = sum(line["expected"] == line["predictions"][0]["label"] for line in named)
    assert summary["accuracy"]["value"] == report.summary.accuracy == right / 38


@pytest.fixture
def batches_until_stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yields a list. Appending n to it stops the job before its n-th batch is written."""
    countdown: list[int] = []
    append = Journal.append

    def stop_or_append(self: Journal, records: Any) -> None:
        if countdown:
            countdown[0] -= 1
            if countdown[0] < 0:
                raise KeyboardInterrupt
        append(self, records)

    monkeypatch.setattr(Journal, "append", stop_or_append)
    return countdown  # type: ignore[return-value]


@pytest.mark.parametrize("batches", [0, 1, 3, 5])
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_stopped_job_continues_to_the_same_files(
    work_folder: Path, batches_until_stop: list[int], batches: int, ending: str
) -> None:
    classify(f"whole.{ending}")
    batches_until_stop.append(batches)
    with pytest.raises(KeyboardInterrupt):
        classify(f"r.{ending}")
    assert not Path(f"r.{ending}").exists()
    assert Path(f"r.{ending}.part").exists()
    batches_until_stop.clear()
    report = classify(f"r.{ending}")
    assert report.images == IMAGES - _images_in_batches(batches)
    for suffix in ("", ".errors.jsonl", ".summary.json", ".confusion.png"):
        assert Path(f"r.{ending}{suffix}").read_bytes() == Path(f"whole.{ending}{suffix}").read_bytes()
    assert not Path(f"r.{ending}.part").exists()


def _images_in_batches(batches: int) -> int:
    """Returns the number of images, including damaged ones, in the first batches of eight valid images."""
    is_good = [name in GOOD for name in ALL]
    return next(index for index in range(IMAGES) if sum(is_good[:index]) == 8 * batches)


@pytest.mark.parametrize("step", ["_write_summary", "_plot_confusion"])
def test_a_job_stopped_while_writing_output_files_writes_them_again(
    work_folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputFiles, step, stop)
        with pytest.raises(KeyboardInterrupt):
            classify()
    assert classify().images == 0
    assert files("r.jsonl") == GOOD


def test_a_finished_job_is_not_done_again(work_folder: Path) -> None:
    first = classify()
    before = Path("r.jsonl").stat()
    again = classify()
    assert again.summary == first.summary
    assert "nothing was left to do" in "\n".join(again.lines())
    assert Path("r.jsonl").stat() == before


def test_a_job_stays_with_the_version_that_began_it(work_folder: Path, batches_until_stop: list[int]) -> None:
    batches_until_stop.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify()
    batches_until_stop.clear()
    write_version(work_folder / "models", "linear", 2, seed=9)
    assert classify().title == "linear version 1"
    assert classify().title == "linear version 1"
    assert classify("new.jsonl").title == "linear version 2"


def test_shards_together_have_every_image_once(work_folder: Path) -> None:
    for number in (1, 2, 3):
        classify("r.csv", shard=Shard(number, 3))
    rows = [row for number in (1, 2, 3) for row in Path(f"r-{number}-of-3.csv").read_text().splitlines()[1:]]
    assert sorted(row.split(",")[0] for row in rows) == GOOD
    digests = {json.loads(path.read_text())["job"]["digest"] for path in work_folder.glob("*.summary.json")}
    assert len(digests) == 1, "all shards saw the same images"


def test_a_shard_without_images_is_done(work_folder: Path) -> None:
    report = classify(inputs=("photos/class-0/00.png",), shard=Shard(2, 2))
    assert report.summary.class_counts.total() == 0
    assert files("r-2-of-2.jsonl") == []


def test_images_that_are_all_broken_need_no_model_run(work_folder: Path) -> None:
    report = classify(inputs=tuple(f"photos/{name}" for name in BROKEN))
    assert (report.summary.class_counts.total(), report.summary.error_counts.total()) == (0, 2)
    assert files("r.jsonl") == []


def start_job(finished: bool, batches_until_stop: list[int]) -> None:
    """Runs a job to its end, or stops it before its third batch is written."""
    if finished:
        classify()
        return
    batches_until_stop.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify()
    batches_until_stop.clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": ("photos/class-0",)}, "images is 50 there and 10 here"),
        ({"top_k": 2}, "top_k is 1 there and 2 here"),
        ({"model": "other"}, "model is linear there and other here"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_the_output_of_another_job_is_rejected(
    work_folder: Path, change: dict[str, Any], message: str, finished: bool, batches_until_stop: list[int]
) -> None:
    write_version(work_folder / "models", "other", 1)
    start_job(finished, batches_until_stop)
    with pytest.raises(OutputConflict, match=message):
        classify(**change)
    assert classify(**change, overwrite=True).images > 0


@pytest.mark.parametrize("finished", [True, False])
def test_a_version_with_other_content_is_another_model(
    work_folder: Path, finished: bool, batches_until_stop: list[int]
) -> None:
    start_job(finished, batches_until_stop)
    shutil.rmtree(work_folder / "models/linear/1")
    write_version(work_folder / "models", "linear", 1, seed=9)
    with pytest.raises(OutputConflict, match="version 1 of the model has other content"):
        classify()


@pytest.mark.parametrize("finished", [True, False])
def test_a_newer_version_that_cannot_be_downloaded_does_not_stop_a_resume(
    work_folder: Path, finished: bool, batches_until_stop: list[int]
) -> None:
    """The job continues with the version that it started with."""
    settings = {"models": f"file://{work_folder}/models", "bucket_cache": work_folder / "cache"}
    if finished:
        classify(settings=settings)
    else:
        batches_until_stop.append(2)
        with pytest.raises(KeyboardInterrupt):
            classify(settings=settings)
        batches_until_stop.clear()
    (write_version(work_folder / "models", "linear", 2) / "labels.txt").write_text("x")
    classify(settings=settings)
    assert files("r.jsonl") == GOOD
    with pytest.raises(BrokenVersion, match="linear/2 cannot be fetched"):
        classify(settings=settings, overwrite=True)


@pytest.mark.parametrize("image_digests", [True, False])
@pytest.mark.parametrize("finished", [True, False])
def test_an_image_that_was_replaced_is_noticed(
    work_folder: Path, finished: bool, image_digests: bool, batches_until_stop: list[int]
) -> None:
    if finished:
        classify(image_digests=image_digests)
    else:
        batches_until_stop.append(2)
        with pytest.raises(KeyboardInterrupt):
            classify(image_digests=image_digests)
        batches_until_stop.clear()
    Path(ALL[3]).write_bytes(image_bytes(seed=99))
    message = "its images have changed" if finished else f"{ALL[3]} has changed since it was classified"
    with pytest.raises(OutputConflict, match=message):
        classify(image_digests=image_digests)


def test_with_digests_only_the_content_of_an_image_counts(work_folder: Path, batches_until_stop: list[int]) -> None:
    classify("whole.jsonl")
    batches_until_stop.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify(image_digests=True)
    batches_until_stop.clear()
    for name in ALL:
        os.utime(name, (1, 1))
    classify(image_digests=True)
    assert Path("r.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert classify(image_digests=True).images == 0


def test_pipes_are_reported_and_do_not_block(work_folder: Path) -> None:
    os.mkfifo("photos/class-0/pipe.png")
    report = classify()
    assert files("r.jsonl") == GOOD
    assert (
        "1 pipes, devices, links to these, or links that lead out of the folder, such as photos/class-0/pipe.png"
        in "\n".join(report.lines())
    )


@pytest.fixture
def processor_flags(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Returns the CPU flags, empty at first, and adds an int8 graph with other predictions to the version."""
    folder, other = work_folder / "models/linear/1", write_version(work_folder / "other", seed=7)
    shutil.copy(other / "model.onnx", folder / "model.int8.onnx")
    (float32,), (graph,) = read_manifest(folder).variants, read_manifest(other).variants
    int8 = graph.model_copy(update={"file": "model.int8.onnx", "precision": "int8"})
    write_manifest(read_manifest(folder).model_copy(update={"variants": [float32, int8]}), folder)
    flags: set[str] = set()
    monkeypatch.setattr("service.loaded_models.session_opener.cpu_flags", lambda: flags)
    return flags


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int8"}, "engine is cpu float32 there and cpu int8 here"),
        ({"max_pixels": 100}, "max_pixels is 25000000 there and 100 here"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_another_job(
    processor_flags: set[str], settings: dict[str, Any], message: str, finished: bool, batches_until_stop: list[int]
) -> None:
    start_job(finished, batches_until_stop)
    with pytest.raises(OutputConflict, match=message):
        classify(settings=settings)


def test_a_job_stays_with_the_graph_that_began_it(
    processor_flags: set[str], batches_until_stop: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens if a shard continues on another node, whose processor is faster with int8."""
    classify("whole.jsonl")
    batches_until_stop.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify()
    batches_until_stop.clear()
    processor_flags.add("avx512_vnni")
    monkeypatch.setattr(engine_selection, "choose", lambda times_ms: max(times_ms, key=lambda one: one.inexactness))
    classify()
    assert Path("r.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert classify().images == 0
    classify("new.jsonl")
    assert Path("new.jsonl").read_bytes() != Path("whole.jsonl").read_bytes()


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_resumed_job_times_no_engine_again(
    work_folder: Path, batches_until_stop: list[int], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    batches_until_stop.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify(settings={"precision": precision})
    batches_until_stop.clear()

    def refuse(*args: Any) -> Any:
        raise AssertionError("the first run has chosen")

    monkeypatch.setattr(engine_selection.EngineChoices, "get", refuse)
    assert classify(settings={"precision": precision}).images == IMAGES - _images_in_batches(2)
    assert classify(settings={"precision": precision}).images == 0


def test_the_output_of_another_program_is_kept(work_folder: Path) -> None:
    Path("r.jsonl").write_text("mine")
    with pytest.raises(OutputConflict, match=r"r\.jsonl exists and belongs to another job"):
        classify()
    assert Path("r.jsonl").read_text() == "mine"


def test_overwriting_removes_all_old_output_files(work_folder: Path) -> None:
    classify()
    classify(inputs=("photos/class-4",), overwrite=True)
    assert not Path("r.jsonl.errors.jsonl").exists()
    assert not Path("r.jsonl.confusion.png").exists()
    assert len(lines("r.jsonl")) == 10


def test_outputs_that_differ_in_their_ending_leave_each_other_alone(work_folder: Path) -> None:
    classify("r.jsonl")
    contents = {path.name: path.read_bytes() for path in work_folder.glob("r.*")}
    classify("r.csv", inputs=("photos/class-4",))
    assert {path.name: path.read_bytes() for path in work_folder.glob("r.jsonl*")} == contents
    assert "nothing was left to do" in "\n".join(classify("r.jsonl").lines())


@pytest.mark.parametrize("inputs", ["photos", "photos/**"])
def test_results_among_the_images_are_not_classified(work_folder: Path, inputs: str) -> None:
    """This covers results of another job, of another shard, and of the same job when it is repeated."""
    classify("photos/a.csv")
    for number in (1, 2):
        classify("photos/b.jsonl", inputs=(inputs,), shard=Shard(number, 2))
    classify("photos/c.jsonl", inputs=(inputs,))
    assert len(list(work_folder.glob("photos/*.confusion.png"))) == 4
    assert files("photos/c.jsonl") == GOOD
    for output in ("photos/a.csv", "photos/c.jsonl"):
        assert "nothing was left to do" in "\n".join(classify(output, inputs=(inputs,)).lines())


def test_a_job_killed_after_plotting_continues(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = OutputFiles._plot_confusion

    def plot_and_stop(*args: Any) -> None:
        plot(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputFiles, "_plot_confusion", plot_and_stop)
        with pytest.raises(KeyboardInterrupt):
            classify("photos/r.jsonl")
    assert Path("photos/r.jsonl.confusion.png").exists()
    assert classify("photos/r.jsonl").images == 0


def test_a_stopped_overwrite_continues_without_the_flag_and_restarts_with_it(
    work_folder: Path, batches_until_stop: list[int]
) -> None:
    classify(inputs=("photos/class-4",))
    for _ in range(2):
        batches_until_stop[:] = [2]
        with pytest.raises(KeyboardInterrupt):
            classify(overwrite=True)
        assert len(lines("r.jsonl.part")) == 1 + _images_in_batches(2)
        assert len(lines("r.jsonl")) == 10, "the old results remain until there are new ones"
    batches_until_stop.clear()
    assert classify().images == IMAGES - _images_in_batches(2)
    assert files("r.jsonl") == GOOD


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"model": "nope"}, UnknownModel),
        ({"model": "../models"}, UnknownModel),
        ({"version": "9"}, UnknownVersion),
        ({"version": "newest"}, UnknownVersion),
        ({"output": "r.xlsx"}, ConvoyError),
        ({"inputs": ("nowhere",)}, ConvoyError),
    ],
)
def test_an_error_leaves_nothing_behind(work_folder: Path, change: dict[str, Any], kind: type[ConvoyError]) -> None:
    with pytest.raises(kind):
        classify(**change)
    assert list(work_folder.glob("r*")) == []


def test_a_broken_version_is_reported(work_folder: Path) -> None:
    (work_folder / "models/linear/1/model.onnx").write_bytes(b"changed")
    with pytest.raises(BrokenVersion, match="sha256"):
        classify()


def test_a_job_continues_after_a_model_failure(work_folder: Path) -> None:
    shutil.rmtree(work_folder / "models")
    write_version(work_folder / "models", "linear", graph=brittle_graph((8, 8, 1), 4))
    fatal_image = Path("photos/class-4/40.png")
    original_bytes = fatal_image.read_bytes()
    fatal_image.write_bytes(encode(np.full((8, 8, 1), 255, np.uint8)))
    with pytest.raises(JobInterrupted, match="The model failed on a batch of 8"):
        classify()
    fatal_image.write_bytes(original_bytes)
    assert 0 < classify().images < IMAGES


def test_an_interrupted_job_closes_its_progress(
    work_folder: Path, batches_until_stop: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """tqdm would otherwise show the progress of the next job of the process one line further down."""
    calls: list[str] = []

    class RecordedProgress(Progress):
        def advance(self, images: int, broken: int) -> None:
            calls.append("advance")
            super().advance(images, broken)

        def close(self) -> None:
            calls.append("close")
            super().close()

    monkeypatch.setattr(jobs, "Progress", RecordedProgress)
    start_job(False, batches_until_stop)
    assert calls == ["advance", "advance", "close"]


def test_an_output_that_can_never_be_is_an_error(work_folder: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(CannotStartJob, match="file cannot be written: File exists"):
        classify("file/r.jsonl")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((number, CannotStartJob) for number in (errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG, errno.EINVAL)),
        *((number, CannotStartJob) for number in (errno.EACCES, errno.EPERM, errno.EISDIR, errno.EOPNOTSUPP)),
        *((number, JobInterrupted) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOLCK)),
    ],
)
@pytest.mark.parametrize("call", ["open", "lock_exclusively"])
def test_only_a_temporary_output_error_is_retryable(
    work_folder: Path, number: int, kind: type[ConvoyError], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    if call == "open":
        monkeypatch.setattr(jobs, "Journal", fail)
    else:
        monkeypatch.setattr("service.batch_jobs.journal.lock_exclusively", fail)
    with pytest.raises(kind, match=os.strerror(number)):
        classify()


@pytest.mark.parametrize("output", ["/proc/r.jsonl", "/proc/1/new/r.jsonl"])
def test_an_output_in_a_file_system_without_files_is_an_error(work_folder: Path, output: str) -> None:
    with pytest.raises(CannotStartJob, match=f"^{Path(output).parent}.* cannot be written: No such file or directory"):
        classify(output)


def test_a_pipe_in_place_of_the_partial_file_is_an_error(work_folder: Path) -> None:
    os.mkfifo("r.jsonl.part")
    with pytest.raises(OutputConflict, match="is not a regular file"):
        classify()


def failing_append(error: Exception) -> Callable[..., None]:
    def append(self: Journal, records: object) -> None:
        raise error

    return append


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENOENT, errno.EROFS])
def test_a_running_job_whose_disk_fails_is_interrupted(
    work_folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder was writable when the job began, and has been removed or made read-only since."""
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", failing_append(OSError(number, os.strerror(number))))
        with pytest.raises(JobInterrupted, match=rf"r\.jsonl cannot be written: {os.strerror(number)}"):
            classify()
    assert classify().images == IMAGES


def test_a_running_job_that_may_not_write_a_file_ends(work_folder: Path) -> None:
    Path("r.jsonl.errors.jsonl").mkdir()
    with pytest.raises(CannotStartJob, match=r"errors\.jsonl.* cannot be written: Is a directory"):
        classify()


def test_an_interrupted_job_ends_the_line_of_its_progress(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Progress] = []
    close = Progress.close

    def record_close(progress: Progress) -> None:
        close(progress)
        closed.append(progress)

    monkeypatch.setattr(Progress, "close", record_close)
    monkeypatch.setattr(Journal, "append", failing_append(MemoryError()))
    with pytest.raises(JobInterrupted):
        classify()
    assert len(closed) == 1


def test_too_little_memory_interrupts(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", failing_append(MemoryError()))
        with pytest.raises(JobInterrupted, match="There was too little memory"):
            classify()
    assert classify().images == IMAGES


def sigmoid_probabilities(names: list[str]) -> np.ndarray:
    """Returns the predictions of the model `tags` for single images."""
    folder = Path("models/tags/1")
    manifest = read_manifest(folder)
    session = Session(folder / "model.onnx", manifest.input, manifest.classes, 1)
    pixels = [decode(Path(name).read_bytes(), 1, 0, 10**6) for name in names]
    return np.concatenate([session.run(image[np.newaxis]) for image in pixels])


def test_with_sigmoids_every_likely_label_is_written_and_counted(work_folder: Path) -> None:
    write_version(work_folder / "models", "tags", 1, activation="sigmoid")
    report = classify("tags.jsonl", model="tags", top_k=None)
    records = [json.loads(line) for line in Path("tags.jsonl").read_text().splitlines()]
    expected = sigmoid_probabilities([record["file"] for record in records]) > 0.5
    assert {1, 2, 3} <= set(expected.sum(axis=1).tolist())
    found = [{entry["index"] for entry in record["predictions"]} for record in records]
    assert found == [set(np.flatnonzero(row).tolist()) for row in expected]
    assert report.summary.classified == len(records) == IMAGES - len(BROKEN)
    assert report.summary.class_counts.total() == expected.sum()
    assert report.summary.accuracy is None
    assert report.confusion is None

    classify("tags.csv", model="tags", top_k=None)
    header, *rows = Path("tags.csv").read_text().splitlines()
    assert header.count("label") == expected.sum(axis=1).max()
    assert len(rows) == len(records)
    assert classify("top.jsonl", model="tags", top_k=3).summary.classified == len(records)
    assert {len(json.loads(line)["predictions"]) for line in Path("top.jsonl").read_text().splitlines()} == {3}
