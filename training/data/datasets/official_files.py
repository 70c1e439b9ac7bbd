"""Locates the official files of a data set in a folder that the user specifies, or downloads them through Keras."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.datasets.base import ArraySplit
from training.errors import TrainingError


def official_dir(data_dir: Path | None) -> Path | None:
    """Returns the user's folder of official files, from the option or from CONVOY_DATA."""
    configured = os.environ.get("CONVOY_DATA")
    return Path(configured) if data_dir is None and configured else data_dir


def locate(data_dir: Path, folder: str, files: tuple[str, ...]) -> Path:
    """Returns the folder with `files`:

    `data_dir/folder` or `data_dir`. Raises a TrainingError that names the missing files.
    """
    candidates = [data_dir / folder, data_dir]
    for candidate in candidates:
        if all((candidate / name).is_file() for name in files):
            return candidate
    best = max(candidates, key=lambda candidate: sum((candidate / name).is_file() for name in files))
    missing = ", ".join(name for name in files if not (best / name).is_file())
    raise TrainingError(
        f"{best} lacks {missing}: add the official files, or leave out --data-dir and CONVOY_DATA to download them."
    )


def download(title: str, name: str) -> tuple[ArraySplit, ArraySplit]:
    """Loads the training and test splits of `keras.datasets.NAME` from Keras' cache (~/.keras), or downloads them.

    Raises TrainingError when the download fails.
    """
    import keras

    try:
        parts = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises plain Exception when a download fails
        raise TrainingError(
            f"{title} could not be downloaded: {error}. Use --data-dir to specify a folder that contains it."
        ) from error
    train, test = (ArraySplit(_with_channels(images), labels.reshape(-1).astype(np.int64)) for images, labels in parts)
    return train, test


def _with_channels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images[..., np.newaxis] if images.ndim == 3 else images
