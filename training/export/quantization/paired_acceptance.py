"""Decides whether the service may choose a less exact graph automatically, by pairing its predictions with those of the
float32 graph on held-out images that the service's own code decodes.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from service.hardware import cpu_flags
from service.inference.openvino_plugin import find_plugin
from service.inference.providers import BF16_FLAGS, ON_CPU, ON_OPENVINO, ON_OPENVINO_BF16, Placement
from service.model_store.manifest import MAX_ACCEPTED_LOSS, Acceptance

MIN_IMAGES = 600
"""With fewer images, even two graphs that agree on all of them have an upper bound above MAX_ACCEPTED_LOSS."""
CONFIDENCE = 0.95
BISECTIONS = 60

Probabilities = NDArray[np.float32]


def upper_loss(lost: int, gained: int, images: int) -> float:
    """Returns the one-sided 95% upper bound of the accuracy loss, as a fraction of 1.

    Of `images` pairs, only the first network is right in `lost`, and only the second in `gained`. The bound is that of
    Tango's score interval for the difference of paired proportions (Statistics in Medicine 17, 1998). Its coverage
    stays near the nominal one even if the two networks nearly always agree.
    """
    z = NormalDist().inv_cdf(CONFIDENCE)
    low, high = (lost - gained) / images, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _score_statistic(lost, gained, images, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def compare(
    expected: Probabilities, actual: Probabilities, labels: NDArray[np.int64], placement: Placement = ON_CPU
) -> Acceptance:
    """Compares the probabilities, float32 (n, classes), of the float32 graph and of another graph for the same
    images."""
    expected_classes, actual_classes = expected.argmax(axis=1), actual.argmax(axis=1)
    was_right, is_right = expected_classes == labels, actual_classes == labels
    lost, gained = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
    bound = upper_loss(lost, gained, len(labels))
    return Acceptance(
        engine="openvino" if placement.is_on_openvino else "cpu",
        hint=placement.hint,
        images=len(labels),
        lost=lost,
        gained=gained,
        upper_loss=bound,
        same_class=float((expected_classes == actual_classes).mean()),
        max_abs_difference=min(1.0, float(np.abs(expected - actual).max())),
        automatic=len(labels) >= MIN_IMAGES and bound <= MAX_ACCEPTED_LOSS,
    )


def compare_on_openvino(
    probabilities_on: Callable[[Placement], Probabilities],
    expected: Callable[[], Probabilities],
    labels: NDArray[np.int64],
    *,
    is_exact: bool = True,
) -> list[Acceptance]:
    """Compares a graph on OpenVINO's plugin, with the hints that this processor supports. Empty without the plugin.

    `probabilities_on` runs the graph. `expected` returns the probabilities of the float32 graph. A float32 graph
    (`is_exact`) needs no comparison for the float32 hint.
    """
    if find_plugin().device is None:
        return []
    placements = [] if is_exact else [ON_OPENVINO]
    if not BF16_FLAGS.isdisjoint(cpu_flags()):
        placements.append(ON_OPENVINO_BF16)
    if not placements:
        return []
    reference = expected()
    return [compare(reference, probabilities_on(placement), labels, placement) for placement in placements]


def describe(acceptance: Acceptance) -> str:
    """Describes a comparison in one sentence for logs and cards."""
    engine = acceptance.engine + (f" with {acceptance.hint}" if acceptance.hint else "")
    figures = (
        f"on {engine}, of {acceptance.images:,} held-out images {acceptance.lost} lost and {acceptance.gained} gained: "
        f"at most {100 * acceptance.upper_loss:.2f} points are lost (95% confidence), {acceptance.same_class:.1%} have "
        f"the same class, probabilities differ by at most {acceptance.max_abs_difference:.1g}"
    )
    if acceptance.images < MIN_IMAGES:
        return f"{figures}; the service chooses it automatically only after a comparison on {MIN_IMAGES} or more images"
    verdict = "accepted" if acceptance.automatic else f"not accepted, {100 * MAX_ACCEPTED_LOSS:g} points are allowed"
    return f"{figures}; {verdict}"


def _score_statistic(lost: int, gained: int, images: int, loss: float) -> float:
    """Returns Tango's statistic for the hypothesis that the true loss is `loss`. It falls as `loss` rises."""
    numerator = lost - gained - images * loss
    # The maximum-likelihood estimate of the fraction that is gained, if the loss is `loss`.
    linear = -lost - gained + (2 * images - lost + gained) * loss
    constant = -gained * loss * (1 - loss)
    root = math.sqrt(max(0.0, linear**2 - 8 * images * constant))
    gained_part = (root - linear) / (4 * images)
    variance = images * (2 * gained_part + loss * (1 - loss))
    return numerator / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, numerator or 1.0)
