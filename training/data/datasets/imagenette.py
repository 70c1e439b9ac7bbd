"""Imagenette: 9,469 training and 3,925 test photos of ten easily distinguished classes of ImageNet.

Source: Howard, github.com/fastai/imagenette.
"""

from dataclasses import replace
from pathlib import Path

from training.data.datasets.folder_listing import FolderListing, list_images
from training.errors import TrainingError

TITLE = "Imagenette photos"
FOLDERS = ("imagenette2-160", "imagenette2-320", "imagenette2", "imagenette")
LABELS = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
"""WordNet id (the folder's name) -> class, in the order of the ids, as in ImageNet."""


def list_files(data_dir: Path | None) -> FolderListing:
    """Lists the files of `data_dir/imagenette2-160` (or -320, or full size), or of `data_dir`; `val` is the test set.

    Raises TrainingError if the folder or one of the ten classes is missing.
    """
    if data_dir is None:
        raise TrainingError(
            "Imagenette is not downloaded automatically: unpack imagenette2-160.tgz (github.com/fastai/imagenette) "
            "into a folder, and specify the folder with --data-dir or CONVOY_DATA."
        )
    folder = next((data_dir / name for name in FOLDERS if (data_dir / name).is_dir()), data_dir)
    listing = list_images(folder)
    if listing.labels != tuple(LABELS) or listing.test is None:
        raise TrainingError(f"{folder} is not Imagenette: train/ and val/ with {', '.join(LABELS)} were expected.")
    return replace(listing, labels=tuple(LABELS.values()))
