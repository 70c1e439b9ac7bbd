"""Real images in one zip file per model, packed by `python -m tests.gpu.sample_images FOLDER`, or noise without
them."""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.decode import decode
from service.imaging.preprocess import preprocess
from service.model_store.manifest import Manifest

COUNT = 2000
MAX_PIXELS = 25_000_000
PHOTO = (500, 375)
"""Width and height in pixels, which most photos of ImageNet have."""
PHOTOS = 64


def load_images(folder: Path | None, model: str, manifest: Manifest, max_count: int) -> NDArray[np.uint8] | None:
    """Returns up to `max_count` images of `folder`/<model>.zip as model input; None if the file does not exist."""
    encoded = _read_zip(folder, model, max_count)
    return np.stack([preprocess_encoded(image, manifest) for image in encoded]) if encoded else None


def preprocess_encoded(image: bytes, manifest: Manifest) -> NDArray[np.uint8]:
    """Converts an image to the model's input with the service's code."""
    pixels = decode(image, manifest.input.channels, manifest.preprocessing.background, MAX_PIXELS)
    return preprocess(pixels, manifest.input, manifest.preprocessing)


def load_photos(folder: Path | None) -> tuple[list[bytes], str]:
    """Returns JPEGs of 500x375 and a description: scaled real photos if there are any, else smooth noise."""
    encoded = _read_zip(folder, "imagenette-resnet18", PHOTOS)
    if encoded:
        images = [Image.open(io.BytesIO(photo)).convert("RGB").resize(PHOTO) for photo in encoded]
        return [_jpeg(image) for image in images], f"{len(images)} real photos, scaled to 500x375"
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (PHOTOS, 24, 32, 3), np.uint8)
    return [_jpeg(Image.fromarray(pixels).resize(PHOTO)) for pixels in small], "smooth noise of 500x375"


def pack(dataset: str, model: str, folder: Path, count: int) -> Path:
    """Writes `count` test images of a data set, as a client sends them, into folder/<model>.zip."""
    from training.data import datasets, load_dataset
    from training.recipes import find_recipe

    recipe = find_recipe(model)
    test = datasets.load(dataset, folder_options=load_dataset.folder_options_for(recipe, None)).test
    indices = np.unique(np.linspace(0, len(test) - 1, min(count, len(test))).astype(int))
    file = folder / f"{model}.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for index in indices:
            archive.writestr(f"{index:05}", test.encoded_image(int(index)))
    return file


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.gpu.sample_images", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=COUNT, help="images per model (default: %(default)s)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for model in ("mnist-lenet5", "cifar10-resnet20", "imagenette-resnet18"):
        file = pack(model.partition("-")[0], model, args.folder, args.count)
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


def _read_zip(folder: Path | None, model: str, max_count: int) -> list[bytes]:
    if folder is None or not (folder / f"{model}.zip").exists():
        return []
    with zipfile.ZipFile(folder / f"{model}.zip") as archive:
        return [archive.read(name) for name in sorted(archive.namelist())[:max_count]]


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
