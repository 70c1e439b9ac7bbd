"""ResNet-9 on CIFAR-10 for a CPU: the network of `cifar10-fast` on TensorFlow, in a few hours on two cores.

After David Page, "How to train your ResNet", 2018 (94.08% after 24 epochs). Batches have a quarter of the source's
size, which is equally fast on a CPU, and the learning rate is lower in proportion to the square root of the batch size.
The run is longer, so the cutout square is larger: 12 pixels instead of 8.
"""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="cifar10-resnet9",
    about="ResNet-9 on small photos of ten classes, for a CPU",
    dataset="cifar10",
    architecture="resnet9",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    learning_rate=0.2,
    nesterov=True,
    schedule="one_cycle",
    warm_up_epochs=8,
    weight_decay=5e-4,
    label_smoothing=0.1,
    ema_decay=0.998,
    shift_px=4,
    shift_fill="reflect",
    flip=True,
    cutout_px=12,
    precision="bfloat16",
    epochs=26,
    batch_size=128,
    validation=1000,
    holdout=1500,
)
