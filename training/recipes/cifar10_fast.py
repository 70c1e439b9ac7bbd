"""CIFAR-10 in a minute or two of one GPU: after David Page, "How to train your ResNet", 2018, at twice his epochs.

Network, batch, momentum, weight decay, the peak of the rate after a fifth of the run, mirroring, crops out of padded
images and the size of the hole are his, and so is label smoothing (his part 8). His hole lies wholly inside the image;
this one may reach over its edge (DeVries and Taylor 2017). He trained for 24 epochs in float16.
"""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="cifar10-fast",
    about="ResNet-9 on small photos of ten kinds, for one GPU (KERAS_BACKEND=jax), in a minute or two",
    dataset="cifar10",
    architecture="resnet9",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    learning_rate=0.4,
    nesterov=True,
    schedule="one_cycle",
    warm_up_epochs=10,
    weight_decay=5e-4,
    label_smoothing=0.2,
    shift_px=4,
    shift_fill="reflect",
    flip=True,
    cutout_px=8,
    augment_on_device=True,
    precision="bfloat16",
    epochs=50,
    batch_size=512,
    validation=1000,
    holdout=1500,
)
