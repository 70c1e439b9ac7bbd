"""What is trained on a GPU, in order of value: recipes of the zoo, with what their run there changes."""

from typing import Literal, NamedTuple

Weights = Literal["all", "best", "none"]


class TrainingJob(NamedTuple):
    """One recipe, trained once for each seed.

    `weights` says of which runs they are kept: of all, of the one that is best on the validation images, or of none,
    where only the figures are wanted. `images` is a folder in the data folder, for recipes of images of one's own.
    """

    name: str
    recipe: str
    seeds: tuple[int, ...]
    weights: Weights
    settings: tuple[str, ...] = ()
    images: str = ""


BUDGET = ("epochs=20", "batch_size=128", "precision=bfloat16")
"""Of the networks of the past, each the same: so many looks at the same images, by the recipe of their names."""

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
