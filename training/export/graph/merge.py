"""Merges several graphs with the service's interface into one that returns the mean of their probabilities.

Independent of Keras and of files.
"""

from collections.abc import Sequence

import onnx
from onnx import TensorProto, compose, helper, version_converter

from service.model_store.manifest import IMAGE, PROBABILITIES
from training.errors import TrainingError
from training.export.graph.editor import BATCH_DIMENSION


def merge_average(members: Sequence[onnx.ModelProto], shape: tuple[int, int, int], classes: int) -> onnx.ModelProto:
    """Returns a graph that runs every member on the same `image` and outputs the mean of their probabilities.

    Raises TrainingError for members whose opsets cannot be combined.
    """
    opset = max(_opset(member) for member in members)
    prefixed = [_with_prefix(member, f"member{number}/", opset) for number, member in enumerate(members, 1)]
    outputs = [f"member{number}/{PROBABILITIES}" for number in range(1, len(members) + 1)]
    graph = helper.make_graph(
        [
            *(node for member in prefixed for node in member.graph.node),
            helper.make_node("Mean", outputs, [PROBABILITIES]),
        ],
        "ensemble",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [BATCH_DIMENSION, *shape])],
        [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [BATCH_DIMENSION, classes])],
        [tensor for member in prefixed for tensor in member.graph.initializer],
    )
    others = {entry.domain: entry for member in prefixed for entry in member.opset_import if entry.domain}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *others.values()],
        functions=[function for member in prefixed for function in member.functions],
        ir_version=max(member.ir_version for member in members),
    )
    onnx.checker.check_model(model)
    return model


def _with_prefix(member: onnx.ModelProto, prefix: str, opset: int) -> onnx.ModelProto:
    """Converts a member to the common opset and adds a prefix to all names except the input's."""
    renamed = compose.add_prefix(_at_opset(member, opset), prefix)
    for node in renamed.graph.node:
        for index, tensor in enumerate(node.input):
            if tensor == prefix + IMAGE:
                node.input[index] = IMAGE
    return renamed


def _at_opset(member: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if _opset(member) == opset:
        return member
    try:
        return version_converter.convert_version(member, opset)
    except Exception as error:  # the operators' converters raise different types
        raise TrainingError(
            f"A member with opset {_opset(member)} cannot be combined with a member with opset {opset}: export it "
            "again."
        ) from error


def _opset(member: onnx.ModelProto) -> int:
    version: int = next(entry.version for entry in member.opset_import if entry.domain in ("", "ai.onnx"))
    return version
