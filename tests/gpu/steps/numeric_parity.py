"""Whether the provider answers what the processor answers: float32 by its logits, float16 by its choice of class."""

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
LARGEST_DIFFERENCE = 1e-3
SAME_CLASS = 0.999
LOGITS = "logits_of_the_check"


def measure(plan: Plan, add: Add) -> None:
    for name in model_zoo.networks(plan):
        manifest = model_zoo.manifest(plan, name)
        real = sample_images.real(plan.images, name, manifest, plan.sizes.images)
        some = NOISE if not plan.quick else 2
        images = sessions.noise(manifest.input.shape, some) if real is None else real
        seen = f"{len(images):,} {'images of noise' if real is None else 'real images'}"
        exact = _logits(plan, model_zoo.graph(plan, name, "float32"), images, on_cpu=True)
        add(_float32(name, exact, _logits(plan, model_zoo.graph(plan, name, "float32"), images), seen))
        add(
            _float16(
                name, exact, _probabilities(plan, model_zoo.graph(plan, name, "float16"), images), seen, real is None
            )
        )


def with_logits(graph: Path) -> bytes:
    """The graph with what goes into its softmax as an output of its own. Raises ValueError where it ends in none."""
    model = onnx.load(graph)
    ends = [node for node in model.graph.node if node.op_type == "Softmax"]
    if not ends:
        raise ValueError(f"{graph} ends in no softmax")
    model.graph.node.append(helper.make_node("Identity", [ends[-1].input[0]], [LOGITS]))
    model.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, None))
    return model.SerializeToString()  # type: ignore[no-any-return]


def relative(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The largest difference of a logit, over the largest logit of its image."""
    return float((np.abs(found - exact).max(1) / np.abs(exact).max(1)).max())


def _float32(name: str, exact: NDArray[np.float32], found: NDArray[np.float32], seen: str) -> Row:
    difference, same = relative(exact, found), float((exact.argmax(1) == found.argmax(1)).mean())
    return Row(
        f"{name}, float32",
        f"logits differ by {difference:.1e} at most, {same:.2%} the same class, over {seen}",
        f"at most {LARGEST_DIFFERENCE:g}, 100 %",
        difference <= LARGEST_DIFFERENCE and same == 1,
    )


def _float16(name: str, exact: NDArray[np.float32], found: NDArray[np.float32], seen: str, is_noise: bool) -> Row:
    same = float((exact.argmax(1) == found.argmax(1)).mean())
    wanted = "" if is_noise else f"{SAME_CLASS:.1%}"
    return Row(
        f"{name}, float16", f"{same:.2%} the same class, over {seen}", wanted, None if is_noise else same >= SAME_CLASS
    )


def _logits(plan: Plan, graph: Path, images: NDArray[np.uint8], on_cpu: bool = False) -> NDArray[np.float32]:
    session = sessions.open_session(plan, with_logits(graph), on_cpu=on_cpu)
    return _run(session, LOGITS, images)


def _probabilities(plan: Plan, graph: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _run(sessions.open_session(plan, graph), PROBABILITIES, images)


def _run(session: sessions.onnxruntime.InferenceSession, output: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([session.run([output], {IMAGE: batch})[0] for batch in batches])
