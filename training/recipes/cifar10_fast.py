"""ResNet-9 on CIFAR-10 in one to two minutes on one GPU, after David Page, "How to train your ResNet", 2018.

The source defines the network, batch size, momentum, weight decay, label smoothing, mirroring, random crops, cutout
size, and the peak of the learning rate after a fifth of the run. The source trains half as many epochs (24), in
float16, and its cutout lies completely inside the image. Here the cutout may reach over the edge (DeVries and Taylor
2017).
"""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="cifar10-fast",
    about="ResNet-9 on small photos of ten classes, for one GPU (KERAS_BACKEND=jax), in one to two minutes",
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
