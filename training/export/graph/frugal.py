"""tf2onnx without most of its copies of a network's weights, which are what large exports run out of memory with.

After each of its some 36 passes it writes all constants anew into its protobuf messages, whose memory is only given
back at the very end, and before each it copies the graph in case the pass fails. Only the last writing is read.
Measured on VGG-16 for 64x64 images (159 MB of weights): a peak of 2.9 GB above the network itself in place of
7.6 GB, and the same graph. At 224x224 (553 MB) the whole process peaks at 12.8 GB.
"""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def few_copies() -> Iterator[None]:
    """While it lasts, tf2onnx optimises in place. A pass that fails then raises, where it was left out before."""
    import tf2onnx.graph
    import tf2onnx.optimizer

    optimize = tf2onnx.optimizer.optimize_graph

    def in_place(graph: Any, catch_errors: bool = True, optimizers: Any = None) -> Any:
        write = tf2onnx.graph.Graph.update_proto
        tf2onnx.graph.Graph.update_proto = lambda *_: None
        try:
            return optimize(graph, catch_errors=False, optimizers=optimizers)
        finally:
            tf2onnx.graph.Graph.update_proto = write

    tf2onnx.optimizer.optimize_graph = in_place
    try:
        yield
    finally:
        tf2onnx.optimizer.optimize_graph = optimize
