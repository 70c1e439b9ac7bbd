"""Imported networks compute the same as their files; wrong preprocessing and unsupported files are rejected."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.inference.session import Session
from service.model_store.repository import Repository, VersionFolder
from tests.support.onnx_graphs import CLASSES, SIDE, third_party_graph
from training.cli import main
from training.data.datasets.image_files import prepare_image_file

MOBILENET = "mobilenet_v1_0.25_128.onnx"
CORRECT_FLAGS = ["--scale", "1/128", "--mean", "1", "--resize", "shorter:146", "--crop", "128", "--drop-first-class"]


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["import", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the working folder of the commands, with a file of labels."""
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("".join(f"thing {index}\n" for index in range(CLASSES)))
    return tmp_path


def import_version(model: onnx.ModelProto, *words: object) -> VersionFolder:
    """Imports the graph with these flags as net/1."""
    onnx.save(model, "net.onnx")
    code, output = run("net.onnx", "--name", "net", "--labels", "labels.txt", *words)
    assert code == 0, output
    return Repository(Path("models")).open("net", 1)


def answers(version: VersionFolder, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    manifest = version.manifest
    return Session(version.graph_path(manifest.variants[0]), manifest.input, manifest.classes, 1).run(images)


def run_directly(model: onnx.ModelProto, pixels: NDArray) -> NDArray[np.float64]:
    """Runs the file on one image at a time. Returns the outputs as rows."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"data": image[np.newaxis]})[0].reshape(-1) for image in pixels]
    return np.stack(rows).astype(np.float64)


def softmax(rows: NDArray) -> NDArray[np.float64]:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("flags", "jpeg_scale"), [((), True), (("--interpolation", "nearest"), False)])
def test_large_jpegs_are_decoded_at_a_reduced_scale(
    working_dir: Path, flags: tuple[str, ...], jpeg_scale: bool
) -> None:
    version = import_version(third_party_graph(), "--scale", "1/255", *flags)
    assert version.manifest.preprocessing.jpeg_scale is jpeg_scale


def random_images(channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (9, SIDE, SIDE, channels), np.uint8)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", ["N", 1])
def test_scaling_order_and_softmax_are_added(working_dir: Path, layout: str, batch: int | str) -> None:
    model = third_party_graph(layout, batch=batch, output_kind="logits")
    flags = ["--scale", "1/255", "--mean", "0.4,0.45,0.5", "--std", "0.2,0.25,0.3", "--channels", "bgr"]
    version = import_version(model, *flags)
    images = random_images()
    model_inputs = (images[..., ::-1] / 255 - [0.4, 0.45, 0.5]) / [0.2, 0.25, 0.3]
    model_inputs = (model_inputs.transpose(0, 3, 1, 2) if layout == "nchw" else model_inputs).astype(np.float32)
    expected = softmax(run_directly(model, np.ascontiguousarray(model_inputs)))
    assert np.ptp(expected, axis=0).max() > 0.1
    command = "convoy-train import net.onnx --name net --labels labels.txt --channels bgr --scale 1/255"
    assert f"{command} --mean 0.4,0.45,0.5 --std 0.2,0.25,0.3\n" in (version.path / "card.md").read_text()
    np.testing.assert_allclose(answers(version, images), expected, atol=1e-5)
    operators = [node.op_type for node in onnx.load(version.path / "model.onnx").graph.node]
    assert "Gather" not in operators  # the first kernel's channels were reversed instead
    assert "Mul" not in operators


def test_half_precision_and_a_first_class_of_background(working_dir: Path) -> None:
    model = third_party_graph(dtype="float16", classes=CLASSES + 1, gain=1)
    version = import_version(model, "--drop-first-class", "--scale", "1/255")
    images = random_images()
    rows = run_directly(model, (images / np.float32(255)).transpose(0, 3, 1, 2).astype(np.float16))[:, 1:]
    assert np.ptp(rows, axis=0).max() > 0.05
    np.testing.assert_allclose(answers(version, images), rows / rows.sum(axis=1, keepdims=True), atol=2e-3)


def test_integer_pixels_output_maps_and_any_size(working_dir: Path) -> None:
    model = third_party_graph("nhwc", "uint8", side="side", output_kind="maps", channels=1, gain=0.01)
    version = import_version(model, "--resize", "shorter:14", "--crop", SIDE)
    assert version.manifest.preprocessing.shorter == 14
    images = random_images(channels=1)
    np.testing.assert_allclose(answers(version, images), softmax(run_directly(model, images)), atol=1e-5)


def test_a_graph_of_an_old_opset_and_weights_in_another_file(working_dir: Path) -> None:
    old = third_party_graph(opset=9)
    version = import_version(old, "--scale", "1/255")
    images = random_images()
    expected = answers(version, images)
    onnx.save(third_party_graph(), "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0)
    assert run("apart.onnx", "--name", "apart", "--labels", "labels.txt", "--scale", "1/255")[0] == 0
    apart = Repository(Path("models")).open("apart", 1)
    assert {path.suffix for path in apart.path.iterdir()} == {".onnx", ".json", ".txt", ".md", ".npz"}
    np.testing.assert_allclose(answers(apart, images), expected, atol=1e-6)
    Path("apart.bin").unlink()
    code, output = run("apart.onnx", "--name", "apart", "--labels", "labels.txt")
    assert (code, "separate files (apart.bin). At least one of them is damaged, or missing" in output) == (2, True)


def two_inputs() -> onnx.ModelProto:
    model = third_party_graph()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    return model


def two_outputs() -> onnx.ModelProto:
    model = third_party_graph()
    model.graph.output.append(helper.make_tensor_value_info("pool", TensorProto.FLOAT, None))
    return model


def custom_operator() -> onnx.ModelProto:
    model = third_party_graph()
    model.graph.node[1].domain, model.graph.node[1].op_type = "acme", "Sparkle"
    model.opset_import.append(helper.make_opsetid("acme", 1))
    return model


def integer_input() -> onnx.ModelProto:
    model = third_party_graph()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def wrong_dynamic_batch() -> onnx.ModelProto:
    """Returns a graph that states a dynamic batch size but works with one image only."""
    model = third_party_graph(batch=1)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    return model


def whole_numbers(levels: float) -> Callable[[], onnx.ModelProto]:
    """Returns a function that makes a graph whose sigmoids are multiplied by `levels` and rounded."""

    def make() -> onnx.ModelProto:
        model = third_party_graph(output_kind="logits")
        model.graph.node[-1].output[0] = "rows"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(levels), "levels"))
        model.graph.node.extend(
            [
                helper.make_node("Sigmoid", ["rows"], ["sigmoids"]),
                helper.make_node("Mul", ["sigmoids", "levels"], ["scaled"]),
                helper.make_node("Round", ["scaled"], ["out"]),
            ]
        )
        return model

    return make


def without_input_shape() -> onnx.ModelProto:
    model = third_party_graph()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


REJECTED = {
    "sigmoids as bytes": (whole_numbers(255.0), [], "outputs whole numbers (float32) of unknown scale"),
    "sigmoids in percent": (whole_numbers(100.0), [], "outputs whole numbers (float32) of unknown scale"),
    "no input shape": (without_input_shape, [], "states no shape"),
    "flags of resizing": (
        third_party_graph,
        ["--like", "keras", "--interpolation", "bicubic"],
        "The flags for resizing contradict each other: interpolation is 'bicubic'; without antialias",
    ),
    "four channels, with layout": (
        lambda: third_party_graph(channels=4),
        ["--layout", "nchw"],
        "not nchw with 1 or 3 channels; for RGBA, export the network with a step in front",
    ),
    "background of a binary network": (
        lambda: third_party_graph(classes=1, output_kind="logits"),
        ["--drop-first-class", "--logits"],
        "has one output, not one per class: leave out --drop-first-class",
    ),
    "two inputs": (two_inputs, [], "has 2 inputs (data, more)"),
    "two outputs": (two_outputs, [], "use --output to choose the output with the classes: out, pool"),
    "custom operator": (custom_operator, [], "operators that onnxruntime does not support: acme.Sparkle"),
    "integers": (integer_input, [], "takes int64 numbers; only float32, float16, uint8 can be served"),
    "batch of one": (wrong_dynamic_batch, [], "failed to run"),
    "wrong type": (third_party_graph, ["--dtype", "uint8"], "takes float32 numbers; --dtype states uint8"),
    "wrong layout": (third_party_graph, ["--layout", "nhwc"], "takes ?x3x12x12, which is not nhwc"),
    "ambiguous": (lambda: third_party_graph(side=3), [], "could be either layout: use --layout"),
    "four channels": (lambda: third_party_graph(channels=4), [], "has no dimension of 1 or 3 channels"),
    "any size": (lambda: third_party_graph(side="s"), [], "images of any size: choose one"),
    "other size": (third_party_graph, ["--resize", "squash:14"], "takes 12x12 pixels (width x height), not 14x14"),
    "no resize": (third_party_graph, ["--resize", "longer:14"], "write shorter:146"),
    "too small": (third_party_graph, ["--resize", "shorter:11"], "is too small: 12 pixels are cropped from it"),
    "too many means": (third_party_graph, ["--mean", "1,2"], "--mean has 2 values; the network has 3 channels"),
    "one label less": (
        lambda: third_party_graph(classes=6),
        [],
        "has 5 labels, but the network has 6 classes. If the first",
    ),
    "scaled bytes": (lambda: third_party_graph(dtype="uint8"), ["--mean", "1"], "takes uint8 pixels"),
    "one number": (
        lambda: third_party_graph(classes=1, output_kind="logits"),
        [],
        "one number per image, the probability of the second of 2 labels",
    ),
    "no difference": (lambda: third_party_graph(gain=0), [], "ignores its input"),
}


@pytest.mark.parametrize(("make", "flags", "message"), REJECTED.values(), ids=REJECTED)
def test_a_graph_that_cannot_be_served_is_reported_in_a_sentence(
    working_dir: Path, make, flags: list[str], message: str
) -> None:
    onnx.save(make(), "net.onnx")
    code, output = run("net.onnx", "--name", "net", "--labels", "labels.txt", *flags)
    assert code == 2
    assert message in output
    assert output.startswith("Error: ")
    assert output.count("\n") == 1
    assert not Path("models").exists()


def test_a_check_on_an_empty_folder_is_rejected_in_a_sentence(working_dir: Path) -> None:
    onnx.save(third_party_graph(), "net.onnx")
    Path("photos").mkdir()
    Path("empty").mkdir()
    Image.fromarray(random_images()[0]).save("photos/1.png")
    flags = ["--name", "net", "--labels", "labels.txt", "--images", "photos", "--check", "empty"]
    assert run("net.onnx", *flags) == (2, "Error: empty contains no images (.bmp, .gif, .jpeg, .jpg, .png, .webp).\n")


@pytest.mark.parametrize(
    ("flags", "warns"),
    [
        (["--mean", "0.485,0.456,0.406"], True),
        (["--mean", "0.5"], True),
        (["--mean", "123.68,116.779,103.939"], False),
        (["--mean", "128", "--scale", "1"], False),
        (["--mean", "0.5", "--scale", "1/255"], False),
    ],
)
def test_a_mean_of_scaled_pixels_without_their_scaling_gets_a_warning(
    working_dir: Path, flags: list[str], warns: bool
) -> None:
    onnx.save(third_party_graph(gain=0.02), "net.onnx")
    code, output = run("net.onnx", "--name", "net", "--labels", "labels.txt", *flags)
    assert code == 0, output
    assert ("warning: --mean is that of scaled pixels" in output) == warns


@pytest.mark.parametrize("size", [0, -1])
def test_a_side_of_zero_or_less_is_any_size(working_dir: Path, size: int) -> None:
    model = third_party_graph()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    assert import_version(model, "--size", "12", "--scale", "1/255").manifest.input.shape == (12, 12, 3)


def test_half_precision_in_a_branch_is_widened(working_dir: Path) -> None:
    """The branches of an If, which torch's exporter writes, are graphs of their own."""
    model = third_party_graph(dtype="float16", output_kind="logits")
    model.graph.node[-1].output[0] = "rows"
    branches = {}
    for name, factor in (("then_branch", 2.0), ("else_branch", 3.0)):
        half = helper.make_tensor(f"{name}_factor", TensorProto.FLOAT16, [], np.float16([factor]))
        node = helper.make_node("Mul", ["rows", f"{name}_factor"], [f"{name}_out"])
        output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT16, None)
        branches[name] = helper.make_graph([node], name, [], [output], [half])
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("If", ["yes"], ["out"], **branches))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = random_images()
    pixels = (images.transpose(0, 3, 1, 2) / 255).astype(np.float16)
    expected = softmax(session.run(None, {"data": pixels})[0].astype(np.float64))
    np.testing.assert_allclose(answers(import_version(model, "--scale", "1/255"), images), expected, atol=0.02)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x07\x12\x00"])
def test_a_file_that_is_not_onnx_is_rejected(working_dir: Path, content: bytes) -> None:
    Path("net.onnx").write_bytes(content)
    code, output = run("net.onnx", "--name", "net", "--labels", "labels.txt")
    assert (code, "net.onnx is not an ONNX file" in output) == (2, True)
    assert run("none.onnx", "--name", "net", "--labels", "labels.txt")[1].startswith("Error: none.onnx cannot be read")


def reference_top_5(file: Path, photo: Path) -> list[int]:
    """Returns the five most probable classes, computed with Pillow and onnxruntime alone."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = Image.open(photo).convert("RGB")
    scale = 146 / min(image.size)
    # Resizes like torchvision, whose rule is the default for files with channels first.
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = round((image.width - 128) / 2), round((image.height - 128) / 2)
    pixels = np.asarray(image.crop((left, top, left + 128, top + 128)), np.float32)
    outputs = session.run(None, {"input": ((pixels - 128) / 128).transpose(2, 0, 1)[np.newaxis]})[0]
    return np.argsort(-outputs.reshape(-1)[1:])[:5].tolist()


def test_a_real_mobilenet_answers_as_a_straightforward_pipeline(data_dir: Path, working_dir: Path) -> None:
    file, photos = data_dir / "foreign" / MOBILENET, sorted((data_dir / "photos").iterdir())
    labels = data_dir / "foreign" / "imagenet_class_index.json"
    words = [file, "--name", "mobilenet", "--labels", labels, "--check", data_dir / "photos"]
    code, output = run(*words, *CORRECT_FLAGS)
    assert code == 0, output
    assert output.startswith("accuracy 45.0%, top-5 accuracy 75.0%, over 40 images of known classes\n")
    assert output.count("_") >= 5  # the most confident predictions, with their files
    version = Repository(Path("models")).open("mobilenet", 1)
    preprocessing = version.manifest.preprocessing
    prepared = np.stack(
        [prepare_image_file(photo.read_bytes(), version.manifest.input, preprocessing) for photo in photos]
    )
    actual = np.argsort(-answers(version, prepared), axis=1)[:, :5].tolist()
    assert sum(reference_top_5(file, photo) == top for photo, top in zip(photos, actual, strict=True)) >= 38
    assert version.labels[0] == "tench"


def test_wrong_guesses_about_a_real_mobilenet_are_caught(data_dir: Path, working_dir: Path) -> None:
    index = data_dir / "foreign" / "imagenet_class_index.json"
    words = [data_dir / "foreign" / MOBILENET, "--name", "mobilenet", "--labels", index, *CORRECT_FLAGS]
    for wrong in (["--scale", "1/255", "--mean", "0"], ["--channels", "bgr"]):
        code, output = run(*words, "--check", data_dir / "photos", *wrong)
        assert code == 2
        assert "but 45.0% with --scale 1/127.5 --mean 1. Nothing was published. Use these flags, or --force." in output
    assert not Path("models").exists()


def test_chance_accuracy_is_rejected_unless_forced(working_dir: Path) -> None:
    onnx.save(third_party_graph(), "net.onnx")
    version = import_version(third_party_graph(), "--scale", "1/255")
    images = np.random.default_rng(5).integers(0, 256, (20, SIDE, SIDE, 3), np.uint8)
    wrong = (answers(version, images).argmax(axis=1) + 1) % CLASSES
    for index, (image, answer) in enumerate(zip(images, wrong, strict=True)):
        folder = Path("check", f"Thing-{answer}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    words = ["net.onnx", "--name", "bad", "--labels", "labels.txt", "--scale", "1/255", "--check", "check"]
    code, output = run(*words)
    assert (code, "accuracy 0.0%, top-5 accuracy 100.0%, over 20 images" in output) == (2, True)
    assert "no better than chance" in output
    assert run(*words, "--force", "--dry-run")[0] == 0
    assert not Path("models/bad").exists()
    assert run(*words, "--force")[0] == 0
    assert Repository(Path("models")).open("bad", 1).manifest.metrics == {"check_accuracy": 0, "check_images": 20}
