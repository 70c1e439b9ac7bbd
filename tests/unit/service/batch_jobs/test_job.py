"""A whole job in this process: its files, going on after any stop, shards, and what it refuses."""

import errno
import io
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.batch_jobs import job as jobs
from service.batch_jobs.job import Job, fastest_batch, run
from service.batch_jobs.journal import Journal
from service.batch_jobs.sharding import WHOLE, Shard
from service.batch_jobs.summary import Report
from service.errors import (
    BrokenVersion,
    CannotStart,
    ConvoyError,
    Interrupted,
    OutputTaken,
    UnknownModel,
    UnknownVersion,
)
from service.imaging.decode import decode
from service.inference.session import Session
from service.model_store.manifest import read_manifest, write_manifest
from service.settings import Settings
from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import brittle_graph

IMAGES = 50
BROKEN = ["class-0/07.png", "class-1/13.png"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, run in batches of eight, and 50 images in folders named like its labels, two of them broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "fastest_batch", lambda batch_ms: 8)  # else what is measured here and now
    write_version(tmp_path / "models", "linear", 1)
    for at in range(IMAGES):
        path = tmp_path / f"photos/class-{at // 10}/{at:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(seed=at))
    for name in BROKEN:
        Path("photos", name).write_bytes(b"no image")
    return tmp_path


def classify(output: str = "r.jsonl", settings: dict[str, Any] | None = None, **changes: Any) -> Report:
    job = {"inputs": ("photos",), "model": "linear", "version": None, "top_k": 1, "shard": WHOLE, **changes}
    return run(Job(output=Path(output), **job), Settings(max_batch_size=8, **settings or {}), io.StringIO(), threads)


def threads(workers: int) -> Executor:
    return ThreadPoolExecutor(workers)


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def files(path: str) -> list[str]:
    return [line["file"] for line in lines(path)]


ALL = [f"photos/class-{at // 10}/{at:02}.png" for at in range(IMAGES)]
GOOD = [name for name in ALL if name.removeprefix("photos/") not in BROKEN]


def test_every_image_is_in_the_results_or_among_the_errors(here: Path) -> None:
    report = classify()
    assert files("r.jsonl") == GOOD
    assert files("r.jsonl.errors.jsonl") == [f"photos/{name}" for name in BROKEN]
    assert lines("r.jsonl.errors.jsonl")[0]["error"]["code"] == "bad_image"
    assert report.summary.answers.total() == len(GOOD)
    assert report.images == IMAGES
    assert sorted(path.name for path in here.glob("r.*")) == [
        "r.jsonl",
        "r.jsonl.confusion.png",
        "r.jsonl.errors.jsonl",
        "r.jsonl.summary.json",
    ]


def test_the_answers_are_those_of_the_model_on_each_image_alone(here: Path) -> None:
    classify(top_k=4)
    folder = here / "models/linear/1"
    manifest = read_manifest(folder)
    session = Session(folder / "model.onnx", manifest.input, manifest.classes, 1)
    for line in lines("r.jsonl")[::7]:
        pixels = decode(Path(line["file"]).read_bytes(), 1, 0, 10_000)
        wanted = session.run(pixels[None])[0]
        given = {found["index"]: found["probability"] for found in line["predictions"]}
        assert [given[index] for index in range(4)] == pytest.approx(wanted.tolist(), abs=1e-6)


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
    assert fastest_batch(batch_ms) == size


def test_the_summary_knows_how_many_were_right(here: Path) -> None:
    report = classify()
    told = json.loads(Path("r.jsonl.summary.json").read_text())
    # The fifth folder is named like none of the four labels.
    named = [line for line in lines("r.jsonl") if "expected" in line]
    assert len(named) == told["accuracy"]["images"] == 38
    right = sum(line["expected"] == line["predictions"][0]["label"] for line in named)
    assert told["accuracy"]["value"] == report.summary.accuracy == right / 38


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The job stops before its n-th batch is written: put n into the list."""
    left: list[int] = []
    append = Journal.append

    def stop_or_append(self: Journal, records: Any) -> None:
        if left:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        append(self, records)

    monkeypatch.setattr(Journal, "append", stop_or_append)
    return left  # type: ignore[return-value]


@pytest.mark.parametrize("batches", [0, 1, 3, 5])
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_stopped_job_goes_on_to_the_same_files(here: Path, stopping: list[int], batches: int, ending: str) -> None:
    classify(f"whole.{ending}")
    stopping.append(batches)
    with pytest.raises(KeyboardInterrupt):
        classify(f"r.{ending}")
    assert not Path(f"r.{ending}").exists()
    assert Path(f"r.{ending}.part").exists()
    stopping.clear()
    report = classify(f"r.{ending}")
    assert report.images == IMAGES - _done_in(batches)
    for made in ("", ".errors.jsonl", ".summary.json", ".confusion.png"):
        assert Path(f"r.{ending}{made}").read_bytes() == Path(f"whole.{ending}{made}").read_bytes()
    assert not Path(f"r.{ending}.part").exists()


def _done_in(batches: int) -> int:
    """Images, broken ones included, in the first batches of eight good ones."""
    good = [name in GOOD for name in ALL]
    return next(at for at in range(IMAGES) if sum(good[:at]) == 8 * batches)


@pytest.mark.parametrize("step", ["_write_summary", "_draw"])
def test_stopped_while_it_makes_its_files_it_makes_them_anew(
    here: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs.Files, step, stop)
        with pytest.raises(KeyboardInterrupt):
            classify()
    assert classify().images == 0
    assert files("r.jsonl") == GOOD


def test_a_finished_job_is_not_done_again(here: Path) -> None:
    first = classify()
    before = Path("r.jsonl").stat()
    again = classify()
    assert again.summary == first.summary
    assert "nothing was left to do" in "\n".join(again.lines())
    assert Path("r.jsonl").stat() == before


def test_a_job_stays_with_the_version_that_began_it(here: Path, stopping: list[int]) -> None:
    stopping.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify()
    stopping.clear()
    write_version(here / "models", "linear", 2, seed=9)
    assert classify().about == "linear version 1"
    assert classify().about == "linear version 1"
    assert classify("new.jsonl").about == "linear version 2"


def test_shards_together_have_every_image_once(here: Path) -> None:
    for number in (1, 2, 3):
        classify("r.csv", shard=Shard(number, 3))
    rows = [row for number in (1, 2, 3) for row in Path(f"r-{number}-of-3.csv").read_text().splitlines()[1:]]
    assert sorted(row.split(",")[0] for row in rows) == GOOD
    digests = {json.loads(path.read_text())["job"]["digest"] for path in here.glob("*.summary.json")}
    assert len(digests) == 1, "all shards saw the same images"


def test_a_shard_without_images_is_done(here: Path) -> None:
    report = classify(inputs=("photos/class-0/00.png",), shard=Shard(2, 2))
    assert report.summary.answers.total() == 0
    assert files("r-2-of-2.jsonl") == []


def test_images_that_are_all_broken_need_no_model_run(here: Path) -> None:
    report = classify(inputs=tuple(f"photos/{name}" for name in BROKEN))
    assert (report.summary.answers.total(), report.summary.broken.total()) == (0, 2)
    assert files("r.jsonl") == []


def begin(finished: bool, stopping: list[int]) -> None:
    """A job that is done, or stopped before its third batch was written."""
    if finished:
        classify()
        return
    stopping.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify()
    stopping.clear()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": ("photos/class-0",)}, "images is 50 there and 10 here"),
        ({"top_k": 2}, "top_k is 1 there and 2 here"),
        ({"model": "other"}, "model is linear there and other here"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_job_does_not_take_the_output(
    here: Path, change: dict[str, Any], says: str, finished: bool, stopping: list[int]
) -> None:
    write_version(here / "models", "other", 1)
    begin(finished, stopping)
    with pytest.raises(OutputTaken, match=says):
        classify(**change)
    assert classify(**change, overwrite=True).images > 0


@pytest.fixture
def processor(here: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The flags of the processor, none at first, below a version that has an int8 graph with other answers too."""
    folder, other = here / "models/linear/1", write_version(here / "other", seed=7)
    shutil.copy(other / "model.onnx", folder / "model.int8.onnx")
    (float32,), (graph,) = read_manifest(folder).variants, read_manifest(other).variants
    int8 = graph.model_copy(update={"file": "model.int8.onnx", "precision": "int8"})
    write_manifest(read_manifest(folder).model_copy(update={"variants": [float32, int8]}), folder)
    flags: set[str] = set()
    monkeypatch.setattr("service.loaded_models.loaded_version.cpu_flags", lambda: flags)
    return flags


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"precision": "int8"}, "precision is float32 there and int8 here"),
        ({"max_pixels": 100}, "max_pixels is 25000000 there and 100 here"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_what_other_settings_would_answer_is_another_job(
    processor: set[str], settings: dict[str, Any], says: str, finished: bool, stopping: list[int]
) -> None:
    begin(finished, stopping)
    with pytest.raises(OutputTaken, match=says):
        classify(settings=settings)


def test_a_job_stays_with_the_graph_that_began_it(processor: set[str], stopping: list[int]) -> None:
    """As when a part goes on upon another node, whose processor is quicker with int8."""
    classify("whole.jsonl")
    stopping.append(2)
    with pytest.raises(KeyboardInterrupt):
        classify()
    stopping.clear()
    processor.add("avx512_vnni")
    classify()
    assert Path("r.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert classify().images == 0
    classify("new.jsonl")
    assert Path("new.jsonl").read_bytes() != Path("whole.jsonl").read_bytes()


def test_somebody_elses_output_is_left_alone(here: Path) -> None:
    Path("r.jsonl").write_text("mine")
    with pytest.raises(OutputTaken, match=r"r\.jsonl is there already"):
        classify()
    assert Path("r.jsonl").read_text() == "mine"


def test_a_renewed_output_keeps_nothing_of_the_old_one(here: Path) -> None:
    classify()
    classify(inputs=("photos/class-4",), overwrite=True)
    assert not Path("r.jsonl.errors.jsonl").exists()
    assert not Path("r.jsonl.confusion.png").exists()
    assert len(lines("r.jsonl")) == 10


def test_outputs_that_differ_in_their_ending_leave_each_other_alone(here: Path) -> None:
    classify("r.jsonl")
    left = {path.name: path.read_bytes() for path in here.glob("r.*")}
    classify("r.csv", inputs=("photos/class-4",))
    assert {path.name: path.read_bytes() for path in here.glob("r.jsonl*")} == left
    assert "nothing was left to do" in "\n".join(classify("r.jsonl").lines())


@pytest.mark.parametrize("inputs", ["photos", "photos/**"])
def test_results_among_the_images_are_none(here: Path, inputs: str) -> None:
    """Not of another job, nor of another part, nor the job's own when it is given again."""
    classify("photos/a.csv")
    for number in (1, 2):
        classify("photos/b.jsonl", inputs=(inputs,), shard=Shard(number, 2))
    classify("photos/c.jsonl", inputs=(inputs,))
    assert len(list(here.glob("photos/*.confusion.png"))) == 4
    assert files("photos/c.jsonl") == GOOD
    for output in ("photos/a.csv", "photos/c.jsonl"):
        assert "nothing was left to do" in "\n".join(classify(output, inputs=(inputs,)).lines())


def test_a_job_killed_behind_its_drawing_goes_on_among_its_images(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = jobs.Files._draw

    def draw_and_stop(*given: Any) -> None:
        draw(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs.Files, "_draw", draw_and_stop)
        with pytest.raises(KeyboardInterrupt):
            classify("photos/r.jsonl")
    assert Path("photos/r.jsonl.confusion.png").exists()
    assert classify("photos/r.jsonl").images == 0


def test_a_stopped_renewal_goes_on_without_overwrite_and_with_it_begins_anew(here: Path, stopping: list[int]) -> None:
    classify(inputs=("photos/class-4",))
    for _ in range(2):
        stopping[:] = [2]
        with pytest.raises(KeyboardInterrupt):
            classify(overwrite=True)
        assert len(lines("r.jsonl.part")) == 1 + _done_in(2)
        assert len(lines("r.jsonl")) == 10, "the old results stay until there are new ones"
    stopping.clear()
    assert classify().images == IMAGES - _done_in(2)
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
def test_a_mistake_leaves_nothing_behind(here: Path, change: dict[str, Any], kind: type[ConvoyError]) -> None:
    with pytest.raises(kind):
        classify(**change)
    assert list(here.glob("r*")) == []


def test_a_broken_version_is_told(here: Path) -> None:
    (here / "models/linear/1/model.onnx").write_bytes(b"changed")
    with pytest.raises(BrokenVersion, match="sha256"):
        classify()


def test_a_model_that_fails_leaves_what_is_done_to_go_on_from(here: Path) -> None:
    shutil.rmtree(here / "models")
    write_version(here / "models", "linear", graph=brittle_graph((8, 8, 1), 4))
    fatal = Path("photos/class-4/40.png")
    whole = fatal.read_bytes()
    fatal.write_bytes(encode(np.full((8, 8, 1), 255, np.uint8)))
    with pytest.raises(Interrupted, match="The model failed on a batch of 8"):
        classify()
    fatal.write_bytes(whole)
    assert 0 < classify().images < IMAGES


def test_an_output_that_can_never_be_is_a_mistake(here: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(CannotStart, match="file cannot be written: File exists"):
        classify("file/r.jsonl")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), r"r\.jsonl cannot be written: No space left"),
        (MemoryError(), "There was too little memory"),
    ],
)
def test_a_full_disk_and_a_full_memory_interrupt(
    here: Path, error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, records: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", full)
        with pytest.raises(Interrupted, match=says):
            classify()
    assert classify().images == IMAGES
