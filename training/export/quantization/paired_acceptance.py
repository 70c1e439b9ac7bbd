"""Decides whether a less exact graph may be served by itself: its paired outcomes with the float32 graph on held-out
images, through the service's own decoding.
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
    """The one-sided 95 % upper bound of the accuracy that is lost, part of 1.

    Of `images` pairs, only the first network is right in `lost`, and only the second in `gained`. Tango's score
    interval for the difference of paired proportions (Statistics in Medicine 17, 1998), whose coverage stays near the
    nominal one when the two networks nearly always agree.
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
    """Compares probabilities, float32 (n, classes), of the float32 graph and another for the same images."""
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
    """Acceptances of a graph on the plugin of OpenVINO, for the hints of this processor; none without the plugin.

    `probabilities_on` runs the graph, `expected` is of the float32 graph. An `is_exact` graph, of float32, needs none
    for the float32 hint.
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
    """One sentence for logs and cards."""
    engine = acceptance.engine + (f" with {acceptance.hint}" if acceptance.hint else "")
    figures = (
        f"on {engine}, of {acceptance.images:,} held-out images {acceptance.lost} lost and {acceptance.gained} gained: "
        f"at most {100 * acceptance.upper_loss:.2f} points are lost (95 %), {acceptance.same_class:.1%} the same class"
        f", probabilities differ by at most {acceptance.max_abs_difference:.1g}"
    )
    if acceptance.images < MIN_IMAGES:
        return f"{figures}; the service chooses it by itself only after a comparison on {MIN_IMAGES} or more"
    verdict = "accepted" if acceptance.automatic else f"not accepted, {100 * MAX_ACCEPTED_LOSS:g} points are allowed"
    return f"{figures}; {verdict}"


def _score_statistic(lost: int, gained: int, images: int, loss: float) -> float:
    """Tango's statistic for the hypothesis that the true loss is `loss`; falls as `loss` rises."""
    numerator = lost - gained - images * loss
    # The maximum-likelihood estimate of the part that is gained, if the loss is `loss`.
    linear = -lost - gained + (2 * images - lost + gained) * loss
    constant = -gained * loss * (1 - loss)
    root = math.sqrt(max(0.0, linear**2 - 8 * images * constant))
    gained_part = (root - linear) / (4 * images)
    variance = images * (2 * gained_part + loss * (1 - loss))
    return numerator / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, numerator or 1.0)
