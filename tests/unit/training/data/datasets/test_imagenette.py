"""Imagenette is found under its usual folder names, with words as labels; other folders are rejected."""

from pathlib import Path

import numpy as np
import pytest

from training.data.datasets import imagenette
from training.errors import TrainingError


def create_class_folders(folder: Path, *parts: str) -> None:
    for part in parts:
        for name in imagenette.LABELS:
            (folder / part / name).mkdir(parents=True)
            (folder / part / name / "1.JPEG").touch()


@pytest.mark.parametrize("name", [".", "imagenette2-160", "imagenette2"])
def test_imagenette_is_found_with_readable_labels(tmp_path: Path, name: str) -> None:
    create_class_folders(tmp_path / name, "train", "val")
    listing = imagenette.list_files(tmp_path)
    assert listing.labels[:2] == ("tench", "English springer")
    assert len(listing.test) == 10


def test_another_folder_is_not_imagenette(tmp_path: Path) -> None:
    create_class_folders(tmp_path, "train")
    with pytest.raises(TrainingError, match=r"is not Imagenette: train/ and val/ with n01440764"):
        imagenette.list_files(tmp_path)
    with pytest.raises(TrainingError, match="Imagenette is not downloaded automatically"):
        imagenette.list_files(None)


def test_the_real_files(data_dir: Path) -> None:
    listing = imagenette.list_files(data_dir)
    assert (len(listing.train), len(listing.test)) == (9469, 3925)
    assert np.bincount(listing.test.classes).min() == 357
