"""The flags that control the resizing of images, and their meaning."""

from typing import Any, Literal

from pydantic import ValidationError

from service.model_store.manifest import Preprocessing
from training.errors import TrainingError

Like = Literal["torchvision", "keras", "timm"]
RESIZING: dict[Like, dict[str, Any]] = {
    "torchvision": {"resize_rule": "torchvision", "interpolation": "bilinear", "antialias": True},
    "timm": {"resize_rule": "torchvision", "interpolation": "bicubic", "antialias": True},
    "keras": {"resize_rule": "keras", "interpolation": "bilinear", "antialias": False},
}
"""The defaults of torchvision.transforms, timm.data, and keras.utils.image_dataset_from_directory."""


def resize_fields(
    like: Like | None, interpolation: str | None, antialias: bool | None, background: int | None
) -> dict[str, Any]:
    """Returns the fields of a manifest's `preprocessing` that the flags set. Other fields are missing."""
    stated = {"interpolation": interpolation, "antialias": antialias, "background": background}
    named = {} if like is None else RESIZING[like]
    return named | {field: value for field, value in stated.items() if value is not None}


def checked_preprocessing(**fields: Any) -> Preprocessing:
    """Returns the preprocessing with these fields of the manifest. Raises TrainingError for fields that contradict each
    other."""
    try:
        return Preprocessing(**fields).with_jpeg_scale()
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise TrainingError(
            f"The flags for resizing contradict each other: {reason}. --like sets the defaults of --interpolation and "
            "--antialias."
        ) from error
