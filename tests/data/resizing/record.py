"""Records how torchvision, timm and Keras resize small images: `record.py torchvision`, then `record.py keras`.

No environment of the project contains all these libraries. The recorded files are part of the repository.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
SIZES = [(41, 64), (64, 41), (33, 97), (30, 30), (29, 120), (75, 50)]
SHORTER, CROP = 26, 23


def noise(height: int, width: int) -> np.ndarray:
    """Returns a coarse mosaic with fine noise, uint8 (height, width, 3)."""
    random = np.random.default_rng(height * 1000 + width)
    coarse = random.integers(0, 200, (6, 6, 3)).repeat(width // 6 + 1, axis=1).repeat(height // 6 + 1, axis=0)
    return (coarse[:height, :width] + random.integers(0, 56, (height, width, 3))).astype(np.uint8)


def torchvision_pixels() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    def pipeline(mode: InterpolationMode) -> Callable[[np.ndarray], np.ndarray]:
        steps = transforms.Compose([transforms.Resize(SHORTER, mode), transforms.CenterCrop(CROP)])
        return lambda pixels: np.asarray(steps(Image.fromarray(pixels)))

    return {
        "torchvision": pipeline(InterpolationMode.BILINEAR),
        "timm": pipeline(InterpolationMode.BICUBIC),  # timm.data.create_transform builds these steps
    }


def keras_pixels() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    import keras

    resize = keras.layers.Resizing(CROP, CROP)
    return {"keras": lambda pixels: np.rint(np.asarray(resize(pixels[np.newaxis]))[0]).astype(np.uint8)}


def main() -> None:
    pipelines = torchvision_pixels() if sys.argv[1] == "torchvision" else keras_pixels()
    for name, run in pipelines.items():
        arrays = {f"{height}x{width}": run(noise(height, width)) for height, width in SIZES}
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
