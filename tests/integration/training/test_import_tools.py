"""ONNX files of common exporters are imported exactly, or rejected with advice."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.model_store.repository import Repository
from tests.integration.training.test_import import (
    answers,
    import_version,
    random_images,
    run,
    run_directly,
    softmax,
    working_dir,
)
from tests.support.onnx_graphs import CLASSES, SIDE, third_party_graph

__all__ = ["working_dir"]
pytestmark = pytest.mark.usefixtures("working_dir")
SCALED = ["--scale", "1/255"]
IMPORT = ["net.onnx", "--name", "net"]
LABELED = [*IMPORT, "--labels", "labels.txt"]


def with_last(model: onnx.ModelProto, *nodes: onnx.NodeProto, output_type: int, **constants: object) -> onnx.ModelProto:
    """Appends to a model the nodes that lead from `out` to `last`. `last` becomes the model's output."""
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items())
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("last", output_type, None))
    return model


def expected_rows(model: onnx.ModelProto) -> np.ndarray:
    pixels = (random_images() / np.float32(255)).transpose(0, 3, 1, 2).astype(np.float32)
    return run_directly(model, np.ascontiguousarray(pixels))


def with_allowzero() -> onnx.ModelProto:
    """Returns a graph like torch.onnx.export's default: batch 1, and reshapes with allowzero."""
    model = third_party_graph(batch=1)
    [reshape] = [node for node in model.graph.node if node.op_type == "Reshape"]
    reshape.attribute.append(helper.make_attribute("allowzero", 1))
    return model


def with_class_token() -> onnx.ModelProto:
    """Returns the start of a vision transformer at batch 1: a constant token is prepended to the image's tokens."""
    random = np.random.default_rng(0)
    weights = {
        "kernel": 0.1 * random.normal(size=(8, 3, 4, 4)),
        "token": random.normal(size=(1, 1, 8)),
        "mixer": random.normal(size=(8, 8)),
        "head": 8 * random.normal(size=(8, CLASSES)),
    }
    nodes = [
        helper.make_node("Conv", ["data", "kernel"], ["patches"], strides=[4, 4]),
        helper.make_node("Reshape", ["patches", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["token", "columns"], ["tokens"], axis=1),
        helper.make_node("MatMul", ["tokens", "mixer"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["bounded"]),
        helper.make_node("ReduceMean", ["bounded"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["out"]),
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(
        nodes,
        "vit",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, CLASSES])],
        [*constants, numpy_helper.from_array(np.array([1, 8, 9], np.int64), "flat")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_default_export_of_pytorch_gets_any_batch() -> None:
    model = with_allowzero()
    version = import_version(model, *SCALED)
    np.testing.assert_allclose(answers(version, random_images()), expected_rows(model), atol=1e-5)
    assert "Scan" not in {node.op_type for node in onnx.load(version.path / "model.onnx").graph.node}


def test_a_batch_that_cannot_be_changed_is_served_image_by_image_with_a_warning() -> None:
    model = with_class_token()
    onnx.save(model, "net.onnx")
    code, output = run(*LABELED, *SCALED)
    assert code == 0, output
    assert "warning: net.onnx was exported for batches of 1" in output
    assert 'export it again with a symbolic batch: torch.onnx.export(..., dynamic_shapes=({0: "batch"},))' in output
    version = Repository(Path("models")).open("net", 1)
    expected = softmax(expected_rows(model))
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(answers(version, random_images()), expected, atol=1e-5)


@pytest.mark.parametrize("output_type", [TensorProto.DOUBLE, TensorProto.UINT8])
def test_a_batch_that_cannot_be_changed_may_end_in_another_type(output_type: int) -> None:
    plain = with_last(with_class_token(), helper.make_node("Softmax", ["out"], ["last"]), output_type=TensorProto.FLOAT)
    model = with_last(with_class_token(), helper.make_node("Softmax", ["out"], ["p"]), output_type=output_type)
    if output_type == TensorProto.UINT8:
        nodes = [helper.make_node("Mul", ["p", "levels"], ["big"]), helper.make_node("Round", ["big"], ["whole"])]
    else:
        nodes = [helper.make_node("Identity", ["p"], ["whole"])]
    nodes.append(helper.make_node("Cast", ["whole"], ["last"], to=output_type))
    version = import_version(with_last(model, *nodes, output_type=output_type, levels=np.float32(255)), *SCALED)
    assert "Scan" in {node.op_type for node in onnx.load(version.path / "model.onnx").graph.node}
    atol = 1e-5 if output_type == TensorProto.DOUBLE else 1 / 100
    np.testing.assert_allclose(answers(version, random_images()), expected_rows(plain), atol=atol)


def test_branches_that_read_outer_initializers_are_imported() -> None:
    """torch's exporter writes such Ifs for dynamic shapes."""
    model = third_party_graph(output_kind="logits")
    model.graph.node[-1].output[0] = "rows"
    branches = {}
    for name, operator in (("then_branch", "Mul"), ("else_branch", "Add")):
        node = helper.make_node(operator, ["rows", "factor"], [f"{name}_out"])
        output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [output])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "factor"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["data"], ["mean"], keepdims=0),
            helper.make_node("Greater", ["mean", "factor"], ["is_large"]),
            helper.make_node("If", ["is_large"], ["out"], **branches),
        ]
    )
    expected = softmax(expected_rows(model))
    np.testing.assert_allclose(answers(import_version(model, *SCALED), random_images()), expected, atol=1e-5)


@pytest.mark.parametrize("quantize", ["QuantizeLinear", "Cast", "as float"])
def test_probabilities_of_0_to_255_are_dequantized(quantize: str) -> None:
    model, plain = third_party_graph(), third_party_graph()
    if quantize == "QuantizeLinear":
        node = helper.make_node("QuantizeLinear", ["out", "step", "zero"], ["last"])
        model = with_last(model, node, output_type=TensorProto.UINT8, step=np.float32(1 / 256), zero=np.uint8(0))
    else:
        nodes = [helper.make_node("Mul", ["out", "levels"], ["big"]), helper.make_node("Round", ["big"], ["whole"])]
        last = TensorProto.UINT8 if quantize == "Cast" else TensorProto.FLOAT
        nodes.append(helper.make_node("Cast", ["whole"], ["last"], to=last))
        model = with_last(model, *nodes, output_type=last, levels=np.float32(255))
    version = import_version(model, *SCALED)
    exact = 1e-5 if quantize == "QuantizeLinear" else 1 / 200
    np.testing.assert_allclose(answers(version, random_images()), expected_rows(plain), atol=exact)


def test_float16_inside_and_nodes_in_any_order() -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(third_party_graph(gain=1), keep_io_types=True)
    nodes = list(model.graph.node)[::-1]
    expected = expected_rows(third_party_graph(gain=1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    version = import_version(model, *SCALED)
    np.testing.assert_allclose(answers(version, random_images()), expected, atol=5e-3)


def test_an_input_without_any_size_needs_layout_and_size() -> None:
    model = third_party_graph()
    for name, dimension in zip("bchw", model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dimension.dim_param = name
    version = import_version(model, *SCALED, "--layout", "nchw", "--size", f"{SIDE}x{SIDE + 4}")
    assert version.manifest.input.shape == (SIDE, SIDE + 4, 3)
    onnx.save(model, "net.onnx")
    assert "could be either layout: use --layout" in run(*LABELED, *SCALED)[1]
    assert "choose one with --size 224" in run(*LABELED, *SCALED, "--layout", "nchw")[1]


def log_softmax() -> onnx.ModelProto:
    return with_last(third_party_graph(), helper.make_node("Log", ["out"], ["last"]), output_type=TensorProto.FLOAT)


def test_log_softmax_is_taken_for_logits_and_not_for_probabilities() -> None:
    version = import_version(log_softmax(), *SCALED)
    np.testing.assert_allclose(answers(version, random_images()), expected_rows(third_party_graph()), atol=1e-5)
    code, output = run(*LABELED, *SCALED, "--probabilities")
    assert (code, "so they are not probabilities: leave out --probabilities" in output) == (2, True)


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        ([], "warning: the network gets unscaled pixels, 0 to 255; common scalings: --scale 1; --scale 1/255;"),
        (["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"], "to 1.14e+03; check --scale;"),
        (SCALED, None),
        (["--mean", "123.68,116.779,103.939"], None),
    ],
)
def test_scaling_that_was_forgotten_is_warned_of(flags: list[str], warning: str | None) -> None:
    onnx.save(third_party_graph(gain=0.02), "net.onnx")
    code, output = run(*LABELED, *flags)
    assert code == 0, output
    assert ("warning" in output) == (warning is not None)
    assert (warning or "") in output


def with_sigmoid(classes: int) -> onnx.ModelProto:
    model = third_party_graph(classes=classes, output_kind="logits", gain=1)
    return with_last(model, helper.make_node("Sigmoid", ["out"], ["last"]), output_type=TensorProto.FLOAT)


def test_sigmoids_and_a_single_sigmoid() -> None:
    version = import_version(with_sigmoid(CLASSES), *SCALED)
    assert version.manifest.activation == "sigmoid"
    np.testing.assert_allclose(answers(version, random_images()), expected_rows(with_sigmoid(CLASSES)), atol=1e-5)
    Path("labels.txt").write_text("no\nyes\n")
    onnx.save(with_sigmoid(1), "net.onnx")
    assert run(*LABELED, *SCALED)[0] == 0
    binary = Repository(Path("models")).open("net", 2)
    assert binary.manifest.activation == "binary"
    second = expected_rows(with_sigmoid(1))
    np.testing.assert_allclose(answers(binary, random_images()), np.hstack([1 - second, second]), atol=1e-5)


def with_zip_map() -> onnx.ModelProto:
    """Returns a graph that ends as in Custom Vision and ML.NET: the best label, and a dictionary of scores."""
    names = [f"kind {index}" for index in range(CLASSES)]
    model = third_party_graph()
    model.graph.node.extend(
        [
            helper.make_node("ArgMax", ["out"], ["best"], axis=1, keepdims=0),
            helper.make_node("ArrayFeatureExtractor", ["names", "best"], ["label"], domain="ai.onnx.ml"),
            helper.make_node("ZipMap", ["out"], ["loss"], domain="ai.onnx.ml", classlabels_strings=names),
        ]
    )
    label_names = helper.make_tensor("names", TensorProto.STRING, [1, CLASSES], [name.encode() for name in names])
    model.graph.initializer.append(label_names)
    scores = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.STRING, None))
    model.graph.output.append(helper.make_value_info("loss", helper.make_sequence_type_proto(scores)))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


def with_names() -> onnx.ModelProto:
    """Returns a graph as exported by ultralytics."""
    model = third_party_graph(side="s")
    metadata = {"names": "{0: 'cat', 1: 'dog', 2: 'fox', 3: 'owl', 4: 'elk'}", "imgsz": "[12, 12]", "task": "classify"}
    helper.set_model_props(model, metadata)
    return model


def beside_config() -> onnx.ModelProto:
    """Returns a graph as exported by Hugging Face's optimum, with config.json next to the file."""
    labels = {str(index): name for index, name in enumerate(["cat", "dog", "fox", "owl", "elk"])}
    Path("config.json").write_text(json.dumps({"id2label": labels}))
    Path("preprocessor_config.json").write_text(json.dumps({"size": {"height": 12, "width": 12}}))
    return third_party_graph(side="s")


@pytest.mark.parametrize(
    ("make", "first", "lines"),
    [
        (with_zip_map, "kind 0", ["5 labels from the graph: kind 0, kind 1"]),
        (with_names, "cat", ["labels from the file's metadata (names)", "size 12x12 (height x width) from the file's"]),
        (beside_config, "cat", ["labels from config.json next to it", "size 12x12", "from preprocessor_config.json"]),
    ],
)
def test_labels_and_size_come_from_the_file(make: Callable[[], onnx.ModelProto], first: str, lines: list[str]) -> None:
    onnx.save(make(), "net.onnx")
    code, output = run(*IMPORT, *SCALED)
    assert code == 0, output
    assert all(line in output for line in lines), output
    version = Repository(Path("models")).open("net", 1)
    assert version.labels[0] == first
    np.testing.assert_allclose(answers(version, random_images()), expected_rows(third_party_graph()), atol=1e-5)


def with_argmax() -> onnx.ModelProto:
    last = helper.make_node("ArgMax", ["out"], ["last"], axis=1, keepdims=0)
    return with_last(third_party_graph(), last, output_type=TensorProto.INT64)


def with_unknown_integers() -> onnx.ModelProto:
    last = helper.make_node("Cast", ["out"], ["last"], to=TensorProto.UINT8)
    return with_last(third_party_graph(output_kind="logits"), last, output_type=TensorProto.UINT8)


def in_training_mode() -> onnx.ModelProto:
    last = helper.make_node("Dropout", ["out", "ratio", "on"], ["last"])
    return with_last(third_party_graph(), last, output_type=TensorProto.FLOAT, ratio=np.float32(0.5), on=True)


def dynamically_quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["out"], ["q", "step", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["last"]),
    ]
    return with_last(third_party_graph(), *nodes, output_type=TensorProto.FLOAT)


def for_segmentation() -> onnx.ModelProto:
    model = third_party_graph()
    helper.set_model_props(model, {"task": "segment"})
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_argmax, "ends in ArgMax: 'last' contains indices or the top classes only"),
        (with_unknown_integers, "outputs whole numbers (uint8) of unknown scale. Export it with a floating-point"),
        (in_training_mode, "was exported in training mode (Dropout): call model.eval()"),
        (dynamically_quantized, "results depend on the other images in a batch: import the float32 file"),
        (for_segmentation, "for the task 'segment', according to its metadata"),
        (lambda: third_party_graph(channels=4), "no dimension of 1 or 3 channels; for RGBA, export the network with"),
    ],
)
def test_rejections_give_advice(make: Callable[[], onnx.ModelProto], message: str) -> None:
    onnx.save(make(), "net.onnx")
    code, output = run(*LABELED, *SCALED)
    assert (code, output.count("\n")) == (2, 1), output
    assert message in output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 archive/data.pkl", "is a zip file: import a .keras file with convoy-train export"),
        (b"\x80\x02 pickle", "is a PyTorch file: load the network, and call torch.onnx.export("),
        (b"\x89HDF\r\n\x1a\n....", "is a Keras HDF5 file: use convoy-train export"),
        (b"\x1c\0\0\0TFL3....", "is a TFLite file: python -m tf2onnx.convert --tflite FILE"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a Git LFS pointer instead of the file: run git lfs pull",
        ),
        (b"<!DOCTYPE html>", "is a web page: download the file itself"),
    ],
)
def test_other_formats_are_recognized(content: bytes, message: str) -> None:
    Path("net.onnx").write_bytes(content)
    code, output = run(*LABELED)
    assert (code, output.count("\n"), output.startswith(f"Error: net.onnx {message}")) == (2, 1, True), output


def test_numbers_separated_by_spaces_get_a_hint_about_commas() -> None:
    code, output = run(*LABELED, "--mean", "0.485", "0.456", "0.406")
    assert (code, "by commas: --mean 0.485,0.456,0.406" in output) == (2, True)


@pytest.mark.parametrize("seed", range(30))
def test_no_damaged_file_ends_in_a_traceback(seed: int) -> None:
    """`run` re-raises every exception except exits."""
    random = np.random.default_rng(seed)
    content = bytearray(with_class_token().SerializeToString())
    for at in random.integers(0, 900, 8):
        content[at] = random.integers(0, 256)
    Path("net.onnx").write_bytes(content)
    code, output = run(*LABELED, *SCALED)
    assert code in (0, 2), output
