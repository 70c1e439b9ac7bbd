"""Corrects converted graphs, which onnxruntime would otherwise compute differently from their networks.

Independent of Keras and of files.
"""

import numpy as np
import onnx
from onnx import helper

from training.export.graph.editor import BATCH_DIMENSION, Graph, pads_zeros


def fix_conversion(model: onnx.ModelProto) -> None:
    """Applies the corrections that a converted graph needs to compute the same as its network."""
    name_batch_dimension(model)
    replace_erfc(Graph(model))
    guard_padding(Graph(model))


def name_batch_dimension(model: onnx.ModelProto) -> None:
    """Calls the first dimension of every input and output `batch`."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_DIMENSION
    del model.graph.value_info[:]  # they contain the old name and can be inferred again


def replace_erfc(graph: Graph) -> None:
    """Replaces Erfc by 1 - Erf. The exact GELU uses Erfc, which ONNX lacks and tf2onnx does not convert."""
    for node in graph.nodes:
        if node.op_type == "Erfc":
            one = graph.add_constant("one", np.array(1, np.float32))
            erf = f"{node.output[0]}__erf"
            graph.replace(
                node,
                helper.make_node("Erf", [node.input[0]], [erf]),
                helper.make_node("Sub", [one, erf], list(node.output)),
            )


def guard_padding(graph: Graph) -> None:
    """Keeps onnxruntime from merging a padding with zeros into the next max pooling, which pads with -infinity.

    Its Pad_Fusion merges only paddings with zeros, so the smallest float is used instead. After a ReLU both give the
    same result.
    """
    for pad in graph.nodes:
        pool = graph.only_consumer(pad.output[0]) if pad.op_type == "Pad" and pads_zeros(graph, pad) else None
        if pool is None or pool.op_type != "MaxPool":
            continue
        producer = graph.producer(pad.input[0])
        if producer is None or producer.op_type != "Relu":
            value = graph.add_constant(pad.output[0], np.array(np.finfo(np.float32).tiny))
            pad.input[2:] = [value, *pad.input[3:]]
