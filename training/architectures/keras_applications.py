"""Fine-tuning: Keras Applications networks, pretrained on ImageNet, with a new head for other classes.

The pixel preprocessing of an application becomes part of the network, so that it takes pixels 0..255 in RGB like every
other network here. Training follows Keras' guide "Transfer learning & fine-tuning": first only the head is trained,
then all layers, with a lower learning rate.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
from keras import layers

from training.architectures.layers import logits_layer
from training.errors import TrainingError, first_line
from training.recipes.base import APPLICATION_PREFIX, suggestion

IMAGENET_CLASSES = 1000
IMAGENET_WEIGHTS = "imagenet"
HEAD_LAYERS = ("head_dropout", "logits")


@dataclass(frozen=True)
class PixelPreprocessing:
    """The effect of an application's `preprocess_input` on RGB pixels: pixel * scale + offset, and for some
    applications BGR order."""

    scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    bgr: bool = False


BUILT_IN = PixelPreprocessing()
"""The application scales its pixels itself."""
CAFFE = PixelPreprocessing(offset=(-123.68, -116.779, -103.939), bgr=True)
TF = PixelPreprocessing(scale=(1 / 127.5,) * 3, offset=(-1.0,) * 3)
TORCH = PixelPreprocessing(
    scale=tuple(1 / (255 * std) for std in (0.229, 0.224, 0.225)),
    offset=tuple(-mean / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)),
)

# Left out: the EfficientNet of 2019, whose layers differ without downloaded weights, and NASNet, whose weights fit only
# one image size.
APPLICATIONS: dict[str, PixelPreprocessing] = {
    **dict.fromkeys(("MobileNetV3Small", "MobileNetV3Large"), BUILT_IN),
    **dict.fromkeys((f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")), BUILT_IN),
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"), CAFFE),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2", "MobileNet", "MobileNetV2"), TF),
    **dict.fromkeys(("InceptionV3", "InceptionResNetV2", "Xception"), TF),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), TORCH),
}


def build(
    architecture: str,
    input_shape: tuple[int | None, int | None, int],
    classes: int,
    weights: str | Path | None = None,
    dropout: float = 0.2,
) -> keras.Model:
    """Builds the application "keras:NAME" with global average pooling and a new last layer. Output: logits.

    `weights` is "imagenet" for the weights that Keras downloads or has cached, a weights file, or None for random
    weights. Raises TrainingError for an unknown application, and for weights that are unavailable or do not fit.
    """
    name = architecture.removeprefix(APPLICATION_PREFIX)
    if name not in APPLICATIONS:
        raise TrainingError(f"There is no application {name!r} to start from: {suggestion(name, APPLICATIONS)}")
    if input_shape[-1] != 3:
        raise TrainingError(f"{architecture} takes color images; these have {input_shape[-1]} channel.")
    if weights not in (None, IMAGENET_WEIGHTS):
        _check_weights_file(Path(weights), name)
    image = keras.Input(input_shape, name="image")
    base = _build_base(name, image, weights)
    if weights is not None and APPLICATIONS[name].bgr:
        swap_red_and_blue(base)
    x = layers.Dropout(dropout, name="head_dropout")(base.output)
    return keras.Model(image, logits_layer(x, classes), name=name.lower())


def freeze(model: keras.Model, frozen: bool) -> None:
    """Makes only the head trainable (`frozen`), or all layers. Batch normalization statistics do not change in either
    case.

    The means and variances come from the millions of images of ImageNet; a few new images would make them worse.
    """
    for layer in model.layers:
        if layer.name not in HEAD_LAYERS:
            layer.trainable = not frozen and not isinstance(layer, layers.BatchNormalization)


def _build_base(name: str, image: keras.KerasTensor, weights: str | Path | None) -> keras.Model:
    application: Callable[..., keras.Model] = getattr(keras.applications, name)
    x = preprocess(name, image)
    options = {"include_top": False, "pooling": "avg", "input_tensor": x, "input_shape": image.shape[1:]}
    if weights == IMAGENET_WEIGHTS:
        # Keras raises ValueError with a useful message for a wrong image size.
        return with_downloaded_weights(
            name, lambda: application(weights=IMAGENET_WEIGHTS, **options), reraise=ValueError
        )
    base = application(weights=None, **options)
    if weights is not None:
        load_weights(base, name, Path(weights), "without its last layer (..._notop.h5)")
    return base


def preprocess(name: str, image: keras.KerasTensor) -> keras.KerasTensor:
    """Converts pixels 0..255 in RGB to what the application `name` expects."""
    preprocessing = APPLICATIONS[name]
    if preprocessing == BUILT_IN:
        return image
    return layers.Rescaling(list(preprocessing.scale), list(preprocessing.offset), dtype="float32", name="preprocess")(
        image
    )


def with_downloaded_weights(
    name: str, build_application: Callable[[], keras.Model], reraise: type[Exception] | tuple[()] = ()
) -> keras.Model:
    """Calls `build_application`. Raises TrainingError when Keras cannot download the weights of `name`.

    Errors of the types in `reraise` are not converted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "weights are for 224x224": they fit any size
            return build_application()
    except reraise:
        raise
    except Exception as error:  # Keras raises plain Exception when a download fails
        raise TrainingError(
            f"The weights of {name} could not be downloaded: {error}. Use --weights to name a file that contains them."
        ) from error


def _check_weights_file(path: Path, name: str) -> None:
    if not path.is_file():
        raise TrainingError(f"{path} does not exist: --weights needs a file with the weights of {name}.")
    if path.suffix != ".h5":
        raise TrainingError(f"{path} is not an .h5 file, the format of an application's weights.")


def load_weights(model: keras.Model, name: str, path: Path, extent: str) -> None:
    """Loads the weights of the application `name` from a file.

    Raises TrainingError when the file does not fit; `extent` tells the user which layers the file must contain.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about missing layers: an error follows
            model.load_weights(path)
    except Exception as error:  # the type of the error depends on the file's contents
        problem = _weights_problem(path, str(error)) or first_line(error)
        raise TrainingError(f"{path} does not contain the weights of {name} {extent}: {problem}") from error


def _weights_problem(path: Path, message: str) -> str | None:
    """Translates Keras' message about a weights file into advice for the user; None for an unknown message."""
    if path.suffix == ".keras":
        return "it contains a whole network: export it without --from-keras-applications."
    if re.search(r"file signature not found|[Uu]nable to (synchronously )?open", message):
        return "it is not a weights file (.h5 or .weights.h5)."
    if match := re.search(r"expected (\d+) layers, found (\d+)", message):
        return (
            f"it has {match[2]} layers with weights instead of {match[1]}. It belongs to another network, or it has "
            "(or lacks) the last layer."
        )
    shapes = re.findall(r"shape[= ]*\(([\d, ]+)\)", message)
    if len(shapes) < 2:
        return None
    expected, actual = ([int(size) for size in shape.split(",") if size.strip()] for shape in shapes[:2])
    if expected[:-1] == actual[:-1] and expected[-1] == IMAGENET_CLASSES:
        return (
            f"the last layer in the file has {actual[-1]} classes instead of {IMAGENET_CLASSES}. Save the whole "
            "network as a .keras file, and export that."
        )
    return f"a layer has the shape {actual} instead of {expected}. It belongs to another network."


def swap_red_and_blue(base: keras.Model) -> None:
    """Reverses the input channels of the first convolution, which was trained on BGR, so that it takes RGB."""
    first_conv = next(layer for layer in base.layers if isinstance(layer, layers.Conv2D))
    kernel, *biases = first_conv.get_weights()
    first_conv.set_weights([kernel[:, :, ::-1], *biases])
