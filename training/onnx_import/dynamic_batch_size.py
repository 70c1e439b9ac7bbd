"""Converts a graph with a fixed batch size to any batch size.

Constant shapes that contain the batch size are changed. If that is not enough, a Scan runs the graph once per image,
which is exact but slower.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.export.graph.editor import Graph, attribute

ADVICE = (
    'export it again with a symbolic batch: torch.onnx.export(..., dynamic_shapes=({0: "batch"},)), with the older '
    'exporter dynamic_axes={"input": {0: "batch"}}, or optimum-cli export onnx'
)


def make_batch_dynamic(network: onnx.ModelProto, batch: int) -> None:
    """Changes reshapes whose first size is the fixed batch, so that it is inferred from the other sizes or the input.

    The caller must check the outputs, because the first size can equal the batch by coincidence.
    """
    graph = Graph(network)
    for node in network.graph.node:
        shape = graph.constant(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or shape.ndim != 1 or len(shape) < 2 or shape[0] != batch or 0 in shape[1:]:
            continue
        first = 0 if -1 in shape[1:] else -1
        node.input[1] = graph.add_constant(node.input[1], np.array([first, *shape[1:]], np.int64))
        if attribute(node, "allowzero", 0):  # with allowzero, 0 would mean a size of 0
            node.attribute.remove(next(a for a in node.attribute if a.name == "allowzero"))


def run_per_image(network: onnx.ModelProto, tensor: str, output: str, input_type: int) -> tuple[str, str]:
    """Moves all nodes into a Scan over the first dimension of `tensor`, so that the graph runs on one image at a time.

    Returns the names of the input and of the output, which is float32. Their batch size is arbitrary. Initializers stay
    outside the Scan.
    """
    graph = network.graph
    names = ("batch", "rows", "image", "values", "row", "axis")
    batch, rows, image, values, row, axis = (f"{tensor}__{name}" for name in names)
    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", [image, axis], [tensor]),
            *graph.node,
            helper.make_node("Cast", [output], [values], to=TensorProto.FLOAT),
            helper.make_node("Squeeze", [values, axis], [row]),
        ],
        "image",
        [helper.make_tensor_value_info(image, input_type, None)],
        [helper.make_tensor_value_info(row, TensorProto.FLOAT, None)],
    )
    scan = helper.make_node("Scan", [batch], [rows], body=body, num_scan_inputs=1)
    del graph.node[:]
    graph.node.append(scan)
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), axis))
    return batch, rows
