"""Fine-tunes a network that was pretrained on ImageNet on a few of the user's images: first only the new last layer,
then all layers.

After Keras' guide "Transfer learning & fine-tuning", with a cosine schedule instead of a constant rate.
"""

from training.recipes.base import Recipe

RECIPE = Recipe(
    name="fine-tune",
    about="a Keras Applications network (--from keras:NAME) on your own images",
    dataset="folder",
    architecture="keras:MobileNetV3Small",
    optimizer="adamw",
    learning_rate=1e-3,
    frozen_epochs=5,
    unfrozen_rate=1e-4,
    schedule="cosine",
    crop_area=(0.35, 1.0),
    flip=True,
    epochs=15,
    batch_size=32,
    validation=100,
    holdout=0.1,
    keep="best",
)
