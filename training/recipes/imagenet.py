"""Recipes of networks that won or placed in the ImageNet challenge, for any folder in ImageNet's layout
(train/<class>/*, val/<class>/*), given with --data.

Each value is from the paper unless a comment states otherwise. All recipes subtract the mean of ImageNet's training
pixels per color and do not divide by a standard deviation, as in AlexNet's section 2, to which the other papers refer.
The areas of square crops are computed for 4:3 images, because most of ImageNet's images are 4:3. The papers test on ten
or more crops; here each image is tested once, on its center.
"""

from training.recipes.base import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (1 / 255,) * 3
SQUARE = (1.0, 1.0)
CROP_PX = 224


def _crop_area(*shorter_px: int) -> tuple[float, float]:
    """Returns the fraction of a 4:3 image that a 224x224 crop covers: first when its shorter side is scaled to the
    largest of `shorter_px`, then to the smallest."""
    crop_areas = [CROP_PX**2 / (side * side * 4 / 3) for side in shorter_px]
    return round(min(crop_areas), 3), round(max(crop_areas), 3)


# Krizhevsky, Sutskever, Hinton 2012. Section 5: batch 128, momentum 0.9, weight decay 0.0005, learning rate 0.01,
# divided by 10 when the validation error stops improving, 90 epochs; section 4: crops from 256x256 images, mirrored,
# colors shifted by 0.1, dropout 0.5.
ALEXNET = Recipe(
    name="imagenet-alexnet",
    about="AlexNet as it was trained in 2012, on a folder in ImageNet's layout",
    dataset="folder",
    architecture="alexnet",
    architecture_options={"dropout": 0.5},
    mean=MEAN,
    std=STD,
    crop_area=_crop_area(256),
    crop_aspect=SQUARE,
    flip=True,
    lighting=0.1,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="plateau",
    decay=0.1,
    plateau_epochs=5,  # the paper does not state the number of epochs
    epochs=90,
    batch_size=128,
)

# Simonyan, Zisserman 2014. Section 3.1: batch 256, momentum 0.9, weight decay 5e-4, dropout 0.5, learning rate 0.01,
# divided by 10 when the validation accuracy stops improving, 74 epochs; crops from images with shorter sides of 256 to
# 512, mirrored, AlexNet's shift of colors.
VGG16 = Recipe(
    name="imagenet-vgg16",
    about="VGG-16 (D) as it was trained in 2014, on a folder in ImageNet's layout",
    dataset="folder",
    architecture="vgg-d",
    architecture_options={"dropout": 0.5},
    mean=MEAN,
    std=STD,
    crop_area=_crop_area(256, 512),
    crop_aspect=SQUARE,
    flip=True,
    lighting=0.1,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="plateau",
    decay=0.1,
    plateau_epochs=5,  # the paper does not state the number of epochs
    epochs=74,
    batch_size=256,
)

# Szegedy et al. 2014. Section 5: auxiliary classifiers with weight 0.3, dropout 0.4. Section 6: momentum 0.9, the rate
# falls by 4% every 8 epochs, averaged weights, crops of 8% to 100% of the area with aspect ratios from 3:4 to 4:3, and
# Howard's distortions of 2013 (brightness, contrast and color by half). The paper does not state the initial learning
# rate, batch size, weight decay or number of epochs: these values are from BVLC's GoogLeNet for Caffe.
GOOGLENET_EPOCHS = 250
GOOGLENET = Recipe(
    name="imagenet-googlenet",
    about="GoogLeNet with auxiliary classifiers as it was trained in 2014, on a folder in ImageNet's layout",
    dataset="folder",
    architecture="googlenet",
    architecture_options={"auxiliary": True, "dropout": 0.4},
    mean=MEAN,
    std=STD,
    crop_area=(0.08, 1.0),
    crop_aspect=(3 / 4, 4 / 3),
    flip=True,
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    learning_rate=0.01,  # BVLC
    momentum=0.9,
    weight_decay=2e-4,  # BVLC
    schedule="step",
    milestones=tuple(float(epoch) for epoch in range(8, GOOGLENET_EPOCHS, 8)),
    decay=0.96,
    ema_decay=0.9999,  # the paper averages weights but does not state the decay
    epochs=GOOGLENET_EPOCHS,  # BVLC
    batch_size=32,  # BVLC
)

# He, Zhang, Ren, Sun 2015. Section 3.4: batch 256, momentum 0.9, weight decay 0.0001, rate 0.1 divided by 10 when the
# error plateaus, 600,000 steps, no dropout; crops from images with shorter sides of 256 to 480, mirrored, AlexNet's
# shift of colors.
RESNET50 = Recipe(
    name="imagenet-resnet50",
    about="ResNet-50 as it was trained in 2015, on a folder in ImageNet's layout",
    dataset="folder",
    architecture="resnet50",
    mean=MEAN,
    std=STD,
    crop_area=_crop_area(256, 480),
    crop_aspect=SQUARE,
    flip=True,
    lighting=0.1,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="plateau",
    decay=0.1,
    plateau_epochs=5,  # the paper does not state the number of epochs
    epochs=120,
    batch_size=256,
)

RECIPES = (ALEXNET, VGG16, GOOGLENET, RESNET50)
