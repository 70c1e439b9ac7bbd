"""Measures the gain of each rewrite of an exported graph: the same network with no rewrite, with one, with two, and so
on.

Takes run folders or Keras files, and writes a section of tests/bench/README.md.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from service.hardware import processor_name, usable_cores
from tests.bench.report.markdown import replace_section

REPORT = Path(__file__).with_name("README.md")
DESCRIPTIONS = {
    "fix_reshapes": "shapes are constants",
    "fold_input_scale": "pixel scale in the first layer",
    "fold_max_pool": "pooling within few filters",
}


def main() -> int:
    if len(sys.argv) < 2:
        print("Specify runs or .keras files: python -m tests.bench.graph_optimizations RUN_OR_FILE...", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    importlib.import_module("training.keras_setup")  # sets the log level before Keras is imported
    rows = [row for path in sys.argv[1:] for row in _rows(Path(path))]
    from training.export.quantization.measure_latency import LATENCY_BATCH_SIZES

    head = "".join(f" batch {size} |" for size in LATENCY_BATCH_SIZES)
    table = [f"| network | graph | nodes |{head}", "|---|---|---|" + "---|" * len(LATENCY_BATCH_SIZES), *rows]
    setup = f"Microseconds per image, {usable_cores()} threads of {processor_name()}; "
    setup += f"load average {load:.1f} before the start."
    content = f"{setup}\n\n" + "\n".join(table)
    replace_section(REPORT, "rewrites", content)
    print(content)
    return 0


def _rows(path: Path) -> Iterator[str]:
    from training.export.graph.keras_to_onnx import to_onnx
    from training.export.graph.optimize import OPTIMIZATIONS
    from training.export.keras_files import load_network
    from training.export.output_activation import OutputOptions
    from training.export.quantization.measure_latency import microseconds_per_image
    from training.export.scaling import Scaling
    from training.export.serving_model import input_of, to_serving_model
    from training.runs.run_folder import Run

    network = load_network(Run(path).model_path if path.is_dir() else path)
    model_input = input_of(network)
    images = np.random.default_rng(0).integers(0, 256, (64, *model_input.shape), np.uint8)
    serving = to_serving_model(network, Scaling(), OutputOptions(), images)
    with TemporaryDirectory() as folder:
        graphs: dict[str, Path] = {}
        nodes: dict[str, int] = {}
        for count in range(len(OPTIMIZATIONS) + 1):
            name = "as converted" if not count else f"+ {DESCRIPTIONS[OPTIMIZATIONS[count - 1].__name__]}"
            graphs[name] = Path(folder) / f"{count}.onnx"
            model = to_onnx(serving.network, _optimize_with(count))
            nodes[name] = len(model.graph.node)
            onnx.save(model, graphs[name])
        latencies = microseconds_per_image(graphs, model_input, serving.classes, usable_cores())
    for name, times in latencies.items():
        yield f"| {network.name} | {name} | {nodes[name]} | " + " | ".join(f"{us:.1f}" for us in times.values()) + " |"


def _optimize_with(count: int) -> Callable[[onnx.ModelProto], None]:
    """Returns the optimization of an export with only the first `count` rewrites."""
    from training.export.graph.conversion_fixes import fix_conversion
    from training.export.graph.editor import Graph
    from training.export.graph.optimize import OPTIMIZATIONS

    def optimize(model: onnx.ModelProto) -> None:
        fix_conversion(model)
        for rewrite in OPTIMIZATIONS[:count]:
            rewrite(Graph(model))
            Graph(model).prune()

    return optimize


if __name__ == "__main__":
    sys.exit(main())
