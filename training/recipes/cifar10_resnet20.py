"""ResNet-20 on CIFAR-10: He et al. 2015, section 4.2 (91.25% in 182 epochs), shortened to about an hour on a CPU.

Batch size, crop and flip are as in the paper, except that the margins of the crop mirror the image instead of being
black. The one-cycle schedule (Smith and Topin 2017, "Super-convergence"), Nesterov momentum and a weight decay of 5e-4
instead of 1e-4 compensate for most of the omitted epochs.
"""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="cifar10-resnet20",
    about="ResNet-20 on small photos of ten classes, for a CPU",
    dataset="cifar10",
    architecture="cifar-resnet20",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    learning_rate=0.2,
    nesterov=True,
    schedule="one_cycle",
    warm_up_epochs=10,
    weight_decay=5e-4,
    shift_px=4,
    shift_fill="reflect",
    flip=True,
    precision="bfloat16",
    epochs=60,
    batch_size=128,
    validation=2000,
    holdout=1500,
)
