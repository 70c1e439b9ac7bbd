"""ResNet-20 on CIFAR-10: He et al. 2015, section 4.2 (91.25 % in 182 epochs), shortened to what a CPU does in an hour.

Batch size, crop and flip are the paper's; the crop's margins mirror the image instead of being black. The one-cycle
schedule (Smith and Topin 2017, "Super-convergence"), Nesterov momentum and a weight decay of 5e-4 in place of 1e-4 make
up for most of the epochs left out.
"""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="cifar10-resnet20",
    about="ResNet-20 on small photos of ten kinds, for a CPU",
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
