"""Compares the provider's results with the CPU's: logits for float32, the most probable class for float16."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.model_store.manifest import IMAGE, PROBABILITIES
from tests.gpu import sample_images, sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row
from tests.gpu.steps import model_zoo

BATCH = 32
NOISE = 32
MAX_DIFFERENCE = 1e-3
MIN_SAME_CLASS = 0.999
LOGITS = "logits_of_the_check"


def measure(plan: Plan, add: Add) -> None:
    for name in model_zoo.networks(plan):
        manifest = model_zoo.manifest(plan, name)
        real_images = sample_images.load_images(plan.images, name, manifest, plan.sizes.images)
        noise_count = NOISE if not plan.quick else 2
        images = sessions.random_images(manifest.input.shape, noise_count) if real_images is None else real_images
        image_description = f"{len(images):,} {'images of noise' if real_images is None else 'real images'}"
        exact = _logits(plan, model_zoo.graph(plan, name, "float32"), images, on_cpu=True)
        add(_float32(name, exact, _logits(plan, model_zoo.graph(plan, name, "float32"), images), image_description))
        add(
            _float16(
                name,
                exact,
                _probabilities(plan, model_zoo.graph(plan, name, "float16"), images),
                image_description,
                real_images is None,
            )
        )


def add_logits_output(graph: Path) -> bytes:
    """Returns the graph with the input of its last softmax as an additional output.

    Raises ValueError without softmax.
    """
    model = onnx.load(graph)
    ends = [node for node in model.graph.node if node.op_type == "Softmax"]
    if not ends:
        raise ValueError(f"{graph} does not end in a softmax")
    model.graph.node.append(helper.make_node("Identity", [ends[-1].input[0]], [LOGITS]))
    model.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, None))
    return model.SerializeToString()  # type: ignore[no-any-return]


def relative_difference(exact: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Returns the largest difference of a logit, relative to the largest logit of its image."""
    return float((np.abs(actual - exact).max(1) / np.abs(exact).max(1)).max())


def _float32(name: str, exact: NDArray[np.float32], actual: NDArray[np.float32], image_description: str) -> Row:
    difference, same = relative_difference(exact, actual), float((exact.argmax(1) == actual.argmax(1)).mean())
    return Row(
        f"{name}, float32",
        f"logits differ by {difference:.1e} at most, {same:.2%} the same class, over {image_description}",
        f"at most {MAX_DIFFERENCE:g}, 100 %",
        difference <= MAX_DIFFERENCE and same == 1,
    )


def _float16(
    name: str, exact: NDArray[np.float32], actual: NDArray[np.float32], image_description: str, is_noise: bool
) -> Row:
    same = float((exact.argmax(1) == actual.argmax(1)).mean())
    required = "" if is_noise else f"{MIN_SAME_CLASS:.1%}"
    return Row(
        f"{name}, float16",
        f"{same:.2%} the same class, over {image_description}",
        required,
        None if is_noise else same >= MIN_SAME_CLASS,
    )


def _logits(plan: Plan, graph: Path, images: NDArray[np.uint8], on_cpu: bool = False) -> NDArray[np.float32]:
    session = sessions.open_session(plan, add_logits_output(graph), on_cpu=on_cpu)
    return _run(session, LOGITS, images)


def _probabilities(plan: Plan, graph: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _run(sessions.open_session(plan, graph), PROBABILITIES, images)


def _run(session: sessions.onnxruntime.InferenceSession, output: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([session.run([output], {IMAGE: batch})[0] for batch in batches])
