"""Recipes for Imagenette from random weights on a CPU: ResNet-18-D, and GoogLeNet with auxiliary classifiers.

ResNet-18 reached 86.3% of the test images with half the width and 40 epochs, 87.1% with full width, 60 epochs and
mixup, and 90.6% as below. Two thirds of the epochs use images of 96 pixels, which take two thirds of the time.

GoogLeNet has no batch normalization. With plain SGD, its accuracy was still at chance level after 90 steps; with AdamW
it was not.
"""

from training.recipes.base import Recipe

RESNET18 = Recipe(
    name="imagenette-resnet18",
    about="ResNet-18-D on photos of ten classes, for a CPU",
    dataset="imagenette",
    architecture="resnet18",
    architecture_options={"width": 1.0, "zero_init_last_gamma": True, "resnet_d": True},
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    side_px=128,
    progressive_side_px=(96, 96, 128),
    learning_rate=0.1,
    nesterov=True,
    schedule="one_cycle",
    warm_up_epochs=5,
    weight_decay=5e-4,
    label_smoothing=0.1,
    crop_area=(0.35, 1.0),
    flip=True,
    precision="bfloat16",
    epochs=70,
    batch_size=64,
    validation=500,
    holdout=1500,
)

GOOGLENET = Recipe(
    name="imagenette-googlenet",
    about="GoogLeNet with its auxiliary classifiers on photos of ten classes",
    dataset="imagenette",
    architecture="googlenet",
    architecture_options={"auxiliary": True},
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    side_px=128,
    optimizer="adamw",
    learning_rate=4e-4,
    schedule="one_cycle",
    warm_up_epochs=2,
    weight_decay=0.02,
    crop_area=(0.35, 1.0),
    flip=True,
    precision="bfloat16",
    epochs=40,
    batch_size=64,
    validation=500,
    holdout=1500,
)
