"""Reduced-precision graphs are accepted by accuracy, chosen by speed, and published completely or not at all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from service.inference.session import Session
from service.loaded_models.verify_version import verify
from service.model_store.checksums import sha256_of
from service.model_store.manifest import Manifest, Speed, read_manifest, write_manifest
from service.model_store.repository import Repository
from tests.support.model_versions import linear_graph, write_version
from tests.support.onnx_graphs import SIDE, slow_graph, third_party_graph
from training.cli import main
from training.data.batches import EvaluationBatches, ImageBatches, TrainingBatches
from training.data.datasets import xo
from training.data.datasets.base import ArraySplit
from training.errors import TrainingError
from training.export.quantization import quantize
from training.export.quantization.calibration import CalibrationData
from training.export.quantization.convert_precision import to_float16, to_int8
from training.export.quantization.measure_latency import LATENCY_BATCH_SIZES, microseconds_per_image
from training.export.quantization.quantize import QuantizeOptions, is_automatic
from training.onnx_import.reader import InputSignature
from training.onnx_import.wrap import ModelInterface, wrap_graph

SHAPE = (24, 24, 1)
CORNER = 0
"""A pixel that is black in nearly all X/O images."""


def discard_log(line: str) -> None:
    """Discards a log line."""


def least_squares_weights(outlier: float = 0) -> np.ndarray:
    """Returns weights (576, 2) that classify X and O by least squares, with `outlier` for the corner's pixel."""
    train = xo.load(None).train
    pixels = train.read_images(np.arange(2000)).reshape(2000, -1) / 255
    signs = np.where(train.labels[:2000] == 0, 1.0, -1.0)
    weights = np.linalg.solve(pixels.T @ pixels + 10 * np.eye(pixels.shape[1]), pixels.T @ signs)
    weights[CORNER] += outlier
    return np.stack([weights, -weights], axis=1).astype(np.float32)


def write_xo_version(root: Path, weights: np.ndarray, dataset: str = "xo", test_accuracy: float | None = None) -> Path:
    """Writes xo/1 with these weights. Its manifest contains the data set and the accuracy."""
    folder = write_version(root, "xo", 1, SHAPE, 2, graph=linear_graph(weights, SHAPE))
    (folder / "labels.txt").write_text("X\nO\n")
    (folder / "card.md").write_text("# xo, version 1\n\nA card.\n\n## Limits\n\nMany.\n")
    manifest = read_manifest(folder)
    labels = manifest.labels.model_copy(update={"sha256": sha256_of(folder / "labels.txt")})
    provenance = manifest.provenance.model_copy(update={"dataset": dataset, "recipe": "xo", "seed": 1})
    variants = [manifest.variants[0].model_copy(update={"test_accuracy": test_accuracy})]
    changed = {"labels": labels, "provenance": provenance, "variants": variants}
    write_manifest(manifest.model_copy(update=changed), folder)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns xo/2 with float32, int8 and float16."""
    folder = write_xo_version(tmp_path_factory.mktemp("models"), least_squares_weights())
    quantized = quantize.quantize(
        folder, QuantizeOptions(("int8", "float16"), allow_slower=True, latency_duration_s=0.05), discard_log
    )
    assert quantized == folder.with_name("2")
    return quantized


def open_manifest(folder: Path) -> Manifest:
    return Repository(folder.parents[1]).open("xo", int(folder.name)).manifest


def test_every_graph_is_in_the_manifest_with_its_figures(published: Path) -> None:
    float32, int8, float16 = open_manifest(published).variants
    assert [v.precision for v in (float32, int8, float16)] == ["float32", "int8", "float16"]
    assert float32.held_out_accuracy > 0.75
    for variant in (int8, float16):
        path = published / variant.file
        assert (variant.sha256, variant.bytes) == (sha256_of(path), path.stat().st_size)
        assert variant.held_out_accuracy == pytest.approx(float32.held_out_accuracy, abs=0.005)
        assert variant.test_accuracy == pytest.approx(float32.test_accuracy, abs=0.01)
        assert 0 < variant.parity.max_abs_difference < 0.1
        assert variant.parity.same_class > 0.98
    assert set(int8.speed.us_per_image) == set(int8.speed.float32_us_per_image) == set(LATENCY_BATCH_SIZES)
    assert float16.speed is None  # the machine that runs the tests has no GPU
    for variant in (int8, float16):
        acceptance = variant.acceptances[0]
        assert (acceptance.engine, acceptance.hint, acceptance.images) == ("cpu", None, 500)
        assert not variant.automatic  # 600 images are needed


def test_the_version_is_complete_and_returns_the_published_outputs(published: Path) -> None:
    findings = list(verify(Repository(published.parents[1]), "xo", 2))
    assert [(finding.subject, finding.is_ok) for finding in findings] == [
        ("float32", True),
        ("int8", True),
        ("float16", True),
    ]
    assert all("published outputs of 8 samples" in finding.text for finding in findings)
    assert open_manifest(published.with_name("1")).samples is None  # the published version does not change


def test_the_card_describes_the_graphs(published: Path) -> None:
    card = (published / "card.md").read_text()
    assert card.startswith("# xo, version 2\n\nA card.\n\n## Precisions\n")
    assert card.endswith("## Limits\n\nMany.\n")
    assert "| `model.int8.onnx` int8 |" in card
    assert "threads of" in card or "thread of" in card
    assert f"Made by `convoy-train quantize models/{published.parent.name}/1 --int8 --fp16 --even-if-slower`" in card


def test_quantizing_again_replaces_the_graph(published: Path) -> None:
    options = QuantizeOptions(allow_slower=True, method="percentile", reduce_range=True, latency_duration_s=0.05)
    folder = quantize.quantize(published, options, discard_log)
    precisions = [variant.precision for variant in open_manifest(folder).variants]
    assert sorted(precisions) == ["float16", "float32", "int8"]
    assert (folder / "card.md").read_text().count("## Precisions") == 1
    weights = next(t for t in onnx.load(folder / "model.int8.onnx").graph.initializer if t.name.startswith("weights_q"))
    values = onnx.numpy_helper.to_array(weights)
    assert values.dtype == np.int8
    assert np.abs(values.astype(int)).max() <= 64  # 7-bit weights


def test_a_graph_that_loses_too_much_is_rejected_with_the_figures(tmp_path: Path) -> None:
    folder = write_xo_version(tmp_path, least_squares_weights(outlier=1e4))
    with pytest.raises(
        TrainingError, match=r"int8 loses too much accuracy: on cpu, of 500 held-out images \d+ lost and"
    ):
        quantize.quantize(folder, QuantizeOptions(allow_slower=True), discard_log)
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_test_accuracy_is_kept_if_only_other_images_are_available(tmp_path: Path) -> None:
    folder = write_xo_version(tmp_path, least_squares_weights(), dataset="folder", test_accuracy=0.125)
    log_lines: list[str] = []
    quantized = quantize.quantize(
        folder, QuantizeOptions(allow_slower=True, latency_duration_s=0.05, dataset="xo"), log_lines.append
    )
    float32, int8 = open_manifest(quantized).variants
    assert (float32.test_accuracy, int8.test_accuracy) == (0.125, None)
    assert float32.held_out_accuracy > 0.75
    assert (
        "the published test accuracy was measured on other images, so the new graphs get no test accuracy" in log_lines
    )
    assert any(line.startswith("int8: ") and line.endswith("% of the same 1,000 test images") for line in log_lines)
    card = (quantized / "card.md").read_text()
    assert "The held-out images are a random choice, on which the network may have been trained" in card
    assert "--even-if-slower --dataset xo`" in card


def test_a_test_accuracy_is_measured_again_on_the_same_images(tmp_path: Path) -> None:
    folder = write_xo_version(tmp_path, least_squares_weights(), test_accuracy=0.125)
    log_lines: list[str] = []
    quantized = quantize.quantize(folder, QuantizeOptions(allow_slower=True, latency_duration_s=0.05), log_lines.append)
    assert all(variant.test_accuracy > 0.75 for variant in open_manifest(quantized).variants)
    assert not any("random choice" in line for line in log_lines)
    assert "random choice" not in (quantized / "card.md").read_text()


def test_a_damaged_image_is_named_or_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_xo_version(tmp_path, least_squares_weights())
    for number, label in enumerate(("O", "X")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(640):
            Image.new("L", (24, 24), 100 * number + 10).save(tmp_path / "photos" / label / f"{i}.png")
    (folder / "labels.txt").write_text("O\nX\n")
    manifest = read_manifest(folder)
    labels = manifest.labels.model_copy(update={"sha256": sha256_of(folder / "labels.txt")})
    write_manifest(manifest.model_copy(update={"labels": labels}), folder)
    for path in (tmp_path / "photos" / "O").glob("?.png"):
        path.write_bytes(b"GIF89a")
    monkeypatch.chdir(tmp_path)
    words = ["quantize", "xo/1", "--data", "photos", "--even-if-slower", "--calibrate-on", "2000"]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert "cannot be read: 10. Repair or remove them, or add --skip-unreadable:\n" in refused.output
    assert all(f"  O/{i}.png: " in refused.output for i in range(10))
    completed = CliRunner().invoke(main, [*words, "--skip-unreadable"])
    assert completed.exit_code == 0, completed.output
    assert "--even-if-slower --data FOLDER --skip-unreadable`" in (tmp_path / "xo/2/card.md").read_text()


def speed(*ratios: float) -> Speed:
    us_per_image = dict.fromkeys(LATENCY_BATCH_SIZES, 10.0)
    float32_us_per_image = {size: 10 * ratio for size, ratio in zip(LATENCY_BATCH_SIZES, ratios, strict=True)}
    return Speed(processor="p", threads=1, us_per_image=us_per_image, float32_us_per_image=float32_us_per_image)


def test_the_service_chooses_only_what_is_faster_at_every_batch_size() -> None:
    vnni = {"avx512_vnni"}
    assert is_automatic("int8", speed(1.1, 2, 3), vnni)
    assert not is_automatic("int8", speed(1.0, 2, 3), vnni)
    assert not is_automatic("int8", speed(2, 2, 2), {"avx2"})
    assert is_automatic("float16", speed(2, 2, 2), {"avx2"})
    assert is_automatic("float16", None, frozenset())


def test_a_graph_that_is_not_faster_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_xo_version(tmp_path, least_squares_weights())
    monkeypatch.setattr(quantize, "MIN_SPEEDUP", 1e9)
    with pytest.raises(TrainingError, match=r"int8 is not faster than float32 .* instead of .*Use --even-if-slower"):
        quantize.quantize(folder, QuantizeOptions(latency_duration_s=0.05), discard_log)
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["."], "is not a version's folder, such as models/mnist-lenet5/3"),
        (["xo/1", "--dataset", "xoo"], "no data set called 'xoo'"),
        (["xo/1", "--dataset", "folder"], "needs a folder of images"),
        (["other/1"], "contains no data set: use --dataset, or --data FOLDER"),
        (["other/1", "--dataset", "xo"], "classes of xo differ from those of the network: 2 instead of 4"),
    ],
)
def test_errors_are_reported_in_a_sentence(words: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    write_xo_version(tmp_path, least_squares_weights())
    write_version(tmp_path, "other", 1, SHAPE)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["quantize", *words])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


def test_a_convolution_in_less_precision_still_takes_bytes_and_gives_float_probabilities(tmp_path: Path) -> None:
    signature = InputSignature("data", "float32", "nchw", 3, (SIDE, SIDE), None)
    interface = ModelInterface(signature, "out", signature.input(None), output_count=5, is_logits=False, scale=1 / 255)
    onnx.save(wrap_graph(third_party_graph(), interface), tmp_path / "a.onnx")
    images = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3), np.uint8)
    to_int8(tmp_path / "a.onnx", images, tmp_path / "8.onnx", reduce_range=False, method="minmax")
    to_float16(tmp_path / "a.onnx", tmp_path / "16.onnx")
    expected, int8, float16 = (
        Session(tmp_path / f"{name}.onnx", interface.input, 5, 1).run(images) for name in ("a", "8", "16")
    )
    assert 0 < np.abs(float16 - expected).max() < 0.005
    assert 0 < np.abs(int8 - expected).max() < 0.2
    float16_graph = onnx.load(tmp_path / "16.onnx").graph
    assert next(node for node in float16_graph.node if node.output[0] == "probabilities").op_type == "Softmax"


def test_graphs_are_measured_alternately(tmp_path: Path) -> None:
    onnx.save(slow_graph((8, 8, 1), 4, rounds=30), tmp_path / "slow.onnx")
    fast = write_version(tmp_path, "linear") / "model.onnx"
    model_input = read_manifest(fast.parent).input
    latencies = microseconds_per_image(
        {"slow": tmp_path / "slow.onnx", "fast": fast}, model_input, 4, 1, duration_s=0.05
    )
    assert list(latencies) == ["slow", "fast"]
    assert all(latencies["slow"][size] > 2 * latencies["fast"][size] for size in LATENCY_BATCH_SIZES)


class RecordedImages:
    """Records the X/O images that each step reads, by their pixels: "train", "evaluate", "accept", "calibrate"."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: dict[str, set[bytes]] = {}
        self._record(monkeypatch, TrainingBatches, "train")
        self._record(monkeypatch, EvaluationBatches, "evaluate")
        self._step = ""
        encoded_image = ArraySplit.encoded_image

        def record_encoded(split: ArraySplit, index: int) -> bytes:
            self.images.setdefault(self._step, set()).add(split.images[index].tobytes())
            return encoded_image(split, index)

        monkeypatch.setattr(ArraySplit, "encoded_image", record_encoded)
        for step, method in (("accept", "held_out_probabilities"), ("calibrate", "prepare_calibration")):
            self._name_step(monkeypatch, step, method)

    def _record(self, monkeypatch: pytest.MonkeyPatch, batches: type[ImageBatches], step: str) -> None:
        original = batches.__init__

        def record(
            this: ImageBatches, split: ArraySplit, indices: np.ndarray, *others: object, **named: object
        ) -> None:
            self.images.setdefault(step, set()).update(split.images[index].tobytes() for index in indices)
            original(this, split, indices, *others, **named)

        monkeypatch.setattr(batches, "__init__", record)

    def _name_step(self, monkeypatch: pytest.MonkeyPatch, step: str, method: str) -> None:
        original = getattr(CalibrationData, method)

        def named(data: CalibrationData, argument: object) -> object:
            self._step = step
            try:
                return original(data, argument)
            finally:
                self._step = "test"

        monkeypatch.setattr(CalibrationData, method, named)


@pytest.mark.slow
def test_images_that_accept_a_graph_neither_train_nor_validate_nor_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = RecordedImages(monkeypatch)
    folders = ["--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models"]
    settings = ["--epochs", "2", "--set", "validation=300", "--set", "holdout=250", "--set", "keep=best"]
    for words in (
        ["run", "xo", *settings, *folders[:2]],
        ["export", "RUN", "--name", "xo", *folders[2:]],
        ["quantize", tmp_path / "models/xo/1", "--int8", "--even-if-slower"],
    ):
        [run] = (tmp_path / "runs/xo").glob("[0-9]*") if "RUN" in words else [""]
        result = CliRunner().invoke(main, [str(run if word == "RUN" else word) for word in words])
        assert result.exit_code == 0, result.output
    dataset = xo.load(None)
    accepting, calibrating = recorded.images["accept"], recorded.images["calibrate"]
    assert len(accepting) == 250
    assert accepting <= {image.tobytes() for image in dataset.train.images}
    test_images = {image.tobytes() for image in dataset.test.images}
    assert len(recorded.images["train"]) == len(dataset.train) - 300 - 250
    assert len(recorded.images["evaluate"] - test_images) == 300
    for step in ("train", "evaluate", "calibrate", "test"):
        assert not accepting & recorded.images[step], step
    assert calibrating <= recorded.images["train"]
    assert not accepting & test_images
