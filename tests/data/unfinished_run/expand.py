"""Rebuilds the folder of the unfinished run of `cifar10-resnet9` from the files in this folder.

`python -m tests.data.unfinished_run.expand runs/cifar10-resnet9/20261130T173447Z`, then `convoy-train run --resume`
with that folder. To be small, the checkpoint stores kernels in float16, and neither momentum nor averages: momentum
starts at 0, and averages start at the weights. This folder is removed when the run has finished.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).parent
VARIABLES_PER_LAYER = 5
TRAINABLE_PER_LAYER = 3  # kernel, gamma and beta, but not the mean and the variance


def expand(target: Path) -> None:
    """Writes recipe, facts, history and checkpoint of the run into the new folder `target`."""
    target.mkdir(parents=True)
    for name in ("recipe.json", "run.json", "history.csv"):
        shutil.copyfile(SOURCE / name, target / name)
    with np.load(SOURCE / "checkpoint.npz") as archive:
        shapes = json.loads(str(archive["optimizer_shapes"]))
        arrays = {name: archive[name] for name in archive.files if name != "optimizer_shapes"}
    arrays = {name: array.astype(np.float32) if array.ndim == 4 else array for name, array in arrays.items()}
    count = sum(name.startswith("model/") for name in arrays)
    trainable = [
        arrays[f"model/{index}"]
        for index in range(count)
        if index == count - 1 or index % VARIABLES_PER_LAYER < TRAINABLE_PER_LAYER
    ]
    for name, (shape, dtype) in shapes.items():
        index = int(name.partition("/")[2])  # variable 0 counts the steps; the averages and then the momentum follow
        if index:
            average = trainable[index - 1] if index <= len(trainable) else np.zeros(shape)
            arrays[name] = average.astype(dtype).reshape(shape)
    np.savez(target / "checkpoint.npz", **arrays)


if __name__ == "__main__":
    expand(Path(sys.argv[1]))
