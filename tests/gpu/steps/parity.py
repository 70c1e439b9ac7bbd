"""Checks that the provider gives the same results as the CPU: float32 by its logits, float16 by the predicted class."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.model_store.golden_samples import SAMPLES_FILE, read_golden_samples
from service.model_store.manifest import IMAGE
from tests.gpu.models import OUT_OF_MEMORY
from tests.gpu.plan import RESNET50, Images, Plan, random_images
from tests.gpu.results import Add, Row

MAX_DIFFERENCE = 1e-3
MIN_SAME_CLASS = 0.999
LOGITS = "logits_of_the_check"
Logits = NDArray[np.float32]


def measure(plan: Plan, add: Add) -> None:
    for model in sorted(folder.name for folder in plan.models.iterdir() if folder.name != OUT_OF_MEMORY):
        images = _images(plan, model)
        exact = _logits(plan, model, "float32", images, on_cpu=True)
        for precision in plan.precisions:
            add(_row(f"{model}, {precision}", precision, exact, _logits(plan, model, precision, images)))


def add_logits_output(graph: Path) -> onnx.ModelProto:
    """Returns the graph with the input of its softmax as an additional output. Raises ValueError if it does not end in
    a softmax."""
    model = onnx.load(graph)
    ends = [node for node in model.graph.node if node.op_type == "Softmax"]
    if not ends:
        raise ValueError(f"{graph} does not end in a softmax")
    model.graph.node.append(helper.make_node("Cast", [ends[-1].input[0]], [LOGITS], to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, None))
    return model


def relative_difference(exact: Logits, actual: Logits) -> float:
    """Returns the largest difference of a logit, relative to the largest logit of its image."""
    return float((np.abs(actual - exact).max(1) / np.abs(exact).max(1)).max())


def _row(name: str, precision: str, exact: Logits, actual: Logits) -> Row:
    difference, same = relative_difference(exact, actual), float((exact.argmax(1) == actual.argmax(1)).mean())
    found = f"logits differ by at most {difference:.1e}, {same:.2%} have the same class, over {len(exact)} images"
    if precision == "float32":
        return Row(name, found, f"at most {MAX_DIFFERENCE:g}, 100%", difference <= MAX_DIFFERENCE and same == 1)
    if name.startswith(RESNET50):  # with its random weights, no class is clearly the most probable
        return Row(name, found)
    return Row(name, found, f"{MIN_SAME_CLASS:.1%}", same >= MIN_SAME_CLASS)


def _images(plan: Plan, model: str) -> Images:
    """Returns the golden samples of a shipped model, and noise for other models."""
    manifest, samples = plan.manifest(model), plan.models / model / "1" / SAMPLES_FILE
    if samples.exists():
        return read_golden_samples(samples, manifest.input, manifest.classes).images
    return random_images(manifest.input.shape, 2 if plan.quick else 32)


def _logits(plan: Plan, model: str, precision: str, images: Images, on_cpu: bool = False) -> Logits:
    graph = plan.work / "logits.onnx"
    onnx.save(add_logits_output(plan.graph(model, precision)), graph)
    session = plan.open_session(model, graph, on_cpu=on_cpu)
    (logits,) = session._session.run([LOGITS], {IMAGE: images})
    return np.asarray(logits, np.float32)
