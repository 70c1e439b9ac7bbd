"""Random changes of brightness, contrast, saturation and lighting, drawn per image."""

import numpy as np
from numpy.typing import NDArray

from training.data.sharding import RandomGenerator
from training.recipes.base import Recipe

Images = NDArray[np.uint8]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in a gray value: ITU-R 601-2, as in the decoder."""

# Eigenvalues and eigenvectors (in columns) of the covariance of ImageNet's RGB values, 0..1, as in fb.resnet.torch. The
# paper multiplies its draws by the eigenvalues, not by their square roots, the standard deviations.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def changes_color(recipe: Recipe) -> bool:
    """Returns whether `color_jitter` changes anything with this recipe."""
    return any((recipe.brightness, recipe.contrast, recipe.saturation, recipe.lighting))


def color_jitter(images: Images, recipe: Recipe, random: RandomGenerator) -> Images:
    """Changes saturation, contrast, brightness and lighting of uint8 (n, height, width, 1 or 3); returns new images.

    Saturation, contrast and brightness are each multiplied by a factor from 1 - value to 1 + value of the recipe's
    field. Saturation mixes with the pixel's gray, contrast with the image's mean gray, brightness with black. Lighting
    shifts all pixels along the principal axes of color (Krizhevsky et al. 2012, section 4.1).
    """
    strengths = (recipe.saturation, recipe.contrast, recipe.brightness)
    factors = (1 + random.uniform(-1, 1, (len(images), 3)) * strengths).astype(np.float32)
    pca_weights = random.normal(0, recipe.lighting, (len(images), 3)) * EIGENVALUES
    shifts = (255 * pca_weights @ EIGENVECTORS.T).astype(np.float32)
    # One image at a time, because a whole batch does not fit into the processor's caches.
    return np.stack([_jitter_image(*arguments) for arguments in zip(images, factors, shifts, strict=True)])


def _jitter_image(image: Images, factors: NDArray[np.float32], shift: NDArray[np.float32]) -> Images:
    saturation, contrast, brightness = factors
    values = image.astype(np.float32)
    gray = values if image.shape[-1] == 1 else (values @ LUMA)[..., None]
    mean = gray.mean()
    if image.shape[-1] == 3:
        values *= saturation
        values += (1 - saturation) * gray
    values *= contrast * brightness
    values += (1 - contrast) * brightness * mean + (shift if image.shape[-1] == 3 else 0)
    return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)
