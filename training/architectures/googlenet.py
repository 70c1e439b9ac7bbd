"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2014, table 1."""

from typing import Any

import keras
from keras import layers

from training.architectures.layers import (
    UNIT_RANGE,
    LocalResponseNormalization,
    Normalization,
    logits_layer,
    normalized_input,
)

# Filters of each inception block: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection; None halves the image.
INCEPTION = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "pool3": None,
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "pool4": None,
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}

# Blocks that an auxiliary classifier follows, and the weight of each output's loss (section 5).
AUXILIARY = {"inception_4a": "auxiliary1", "inception_4d": "auxiliary2"}
LOSS_WEIGHTS = {"logits": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}


def googlenet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    normalization: Normalization = UNIT_RANGE,
    dropout: float = 0.4,
    auxiliary: bool = False,
) -> keras.Model:
    """Nine inception blocks, global average pooling and one fully connected layer. Output: logits.

    `auxiliary` is for training. It returns a `WithAuxiliary` network, whose output is a dict of three logits: "logits",
    "auxiliary1" and "auxiliary2". It is compiled and fitted like any other network.
    `training.architectures.without_auxiliary_classifiers` returns it without the auxiliary classifiers, with the same
    weights, for evaluation and export.
    """
    image, x = normalized_input(input_shape, normalization)
    outputs = {}
    x = _stem(x)
    for name, filters in INCEPTION.items():
        x = _inception(x, filters, name) if filters else _halve(x, name)
        if auxiliary and name in AUXILIARY:
            outputs[AUXILIARY[name]] = _auxiliary(x, classes, AUXILIARY[name])
    x = layers.GlobalAveragePooling2D(name="pool5")(x)
    x = layers.Dropout(dropout, name="drop5")(x)
    main = logits_layer(x, classes)
    if not auxiliary:
        return keras.Model(image, main, name="googlenet")
    return WithAuxiliary(image, {"logits": main, **outputs}, name="googlenet")


@keras.saving.register_keras_serializable(package="convoy")
class WithAuxiliary(keras.Model):
    """Trains all classifiers on the same labels, with the compiled loss weighted by `LOSS_WEIGHTS`.

    Metrics and the evaluation loss cover only the main classifier.
    """

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss_weights = LOSS_WEIGHTS if training else {"logits": 1.0}
        losses = [
            weight * super(WithAuxiliary, self).compute_loss(x, y, y_pred[name], sample_weight, training)
            for name, weight in loss_weights.items()
        ]
        return sum(losses)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        metrics: dict[str, Any] = super().compute_metrics(x, y, y_pred["logits"], sample_weight)
        return metrics


def _stem(x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _conv(x, 64, 7, "conv1", strides=2, padding="valid")
    x = LocalResponseNormalization(name="norm1")(_halve(x, "pool1"))
    x = _conv(_conv(x, 64, 1, "conv2_reduce"), 192, 3, "conv2")
    return _halve(LocalResponseNormalization(name="norm2")(x), "pool2")


def _inception(x: keras.KerasTensor, filters: tuple[int, ...], name: str) -> keras.KerasTensor:
    """Joins four branches: 1x1, 1x1 then 3x3, 1x1 then 5x5, and pooling then 1x1. The 1x1 layers reduce the cost."""
    one, three_reduce, three, five_reduce, five, projection = filters
    towers = [
        _conv(x, one, 1, f"{name}_1x1"),
        _conv(_conv(x, three_reduce, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
        _conv(_conv(x, five_reduce, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"),
        _conv(layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x), projection, 1, f"{name}_pool_proj"),
    ]
    return layers.Concatenate(name=name)(towers)


def _auxiliary(x: keras.KerasTensor, classes: int, name: str) -> keras.KerasTensor:
    """Builds the paper's auxiliary classifier.

    On feature maps smaller than 5x5 the pooling window shrinks to their size.
    """
    window = (min(5, x.shape[1]), min(5, x.shape[2]))
    x = layers.AveragePooling2D(window, 3, name=f"{name}_pool")(x)
    x = layers.Flatten(name=f"{name}_flatten")(_conv(x, 128, 1, f"{name}_conv"))
    x = layers.Dense(1024, activation="relu", name=f"{name}_fc")(x)
    return logits_layer(layers.Dropout(0.7, name=f"{name}_drop")(x), classes, name=name)


def _conv(
    x: keras.KerasTensor, filters: int, size: int, name: str, padding: str = "same", **options: Any
) -> keras.KerasTensor:
    return layers.Conv2D(filters, size, padding=padding, activation="relu", name=name, **options)(x)


def _halve(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    # Partial windows count (112 -> 56 is the ceiling of 55.5), as in the authors' framework.
    return layers.MaxPooling2D(3, 2, padding="same", name=name)(x)
