"""The training jobs for a GPU, the most valuable first: recipes with changed settings."""

from typing import Literal, NamedTuple

Weights = Literal["all", "best", "none"]


class TrainingJob(NamedTuple):
    """A recipe that is trained once per seed.

    `weights` selects the runs whose weights are kept: all, the one with the best validation accuracy, or none. `images`
    is a folder below the data folder, for recipes for own images.
    """

    name: str
    recipe: str
    seeds: tuple[int, ...]
    weights: Weights
    settings: tuple[str, ...] = ()
    images: str = ""


BUDGET = ("epochs=20", "batch_size=128", "precision=bfloat16")
"""The same settings for all older architectures, so that they train equally long on the same images."""

JOBS = (
    TrainingJob("cifar10-fast", "cifar10-fast", (1, 2, 3), "best"),
    TrainingJob(
        "cifar10-resnet20",
        "cifar10-resnet20",
        (1, 2, 3),
        "all",
        ("augment_on_device=true", "epochs=120", "warm_up_epochs=20", "batch_size=256", "learning_rate=0.3"),
    ),
    TrainingJob(
        "mnist-lenet5",
        "mnist-lenet5",
        tuple(range(1, 8)),
        "all",
        ("augment_on_device=true", "epochs=40", "batch_size=256"),
    ),
    TrainingJob("imagenette-resnet18", "imagenette-resnet18", (1,), "all", ("epochs=100", "batch_size=128")),
    *(
        TrainingJob(f"history-{network}", network, (1,), "none", BUDGET, "imagenette2-160")
        for network in ("alexnet", "vgg-a", "googlenet", "resnet18")
    ),
)
