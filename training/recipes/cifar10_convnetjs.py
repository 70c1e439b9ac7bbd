"""ConvNetJS' CIFAR-10 demo (Karpathy 2014): three convolutions, 22,466 parameters, trained in the browser.

From its page: pixels / 255 - 0.5, mini-batches of 4, weight decay 1e-4, random shifts and mirrored images. The page
trains with Adadelta and without a fixed number of epochs. This recipe uses Nesterov momentum and a one-cycle schedule
(Smith and Topin 2017) instead.
"""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="cifar10-convnetjs",
    about="ConvNetJS' small network on small photos of ten classes, 22,466 parameters",
    dataset="cifar10",
    architecture="convnetjs",
    mean=(0.5,),
    learning_rate=0.01,
    nesterov=True,
    schedule="one_cycle",
    warm_up_epochs=2,
    weight_decay=1e-4,
    shift_px=2,
    flip=True,
    epochs=20,
    batch_size=32,
    holdout=1500,
)
