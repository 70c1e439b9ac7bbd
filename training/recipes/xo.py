"""The X/O network on generated images. The network starts with three known features; training learns the rest."""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="xo",
    about="the X/O network on generated images, 758 parameters, in seconds",
    dataset="xo",
    architecture="xo",
    mean=(0.5,),
    std=(0.5,),
    learning_rate=0.05,
    schedule="cosine",
    epochs=8,
    batch_size=64,
    validation=500,
)
