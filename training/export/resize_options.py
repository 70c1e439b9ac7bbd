"""The flags that control the resizing of images, and their meaning."""

from typing import Any, Literal

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
