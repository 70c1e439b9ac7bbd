"""Results from the networks' papers: the year, and the top-5 error on ImageNet if there is one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """The result that a paper reports.

    `evaluation` describes the networks and images behind the error. Contest entries are ensembles.
    """

    year: int
    top5_error_percent: float | None = None
    evaluation: str = ""
    note: str = ""
    """A note on the published figures; {values_millions} is replaced by the sum of the rows at the published size."""


_LECTURE_NOTE = (
    "Lecture slides with this table state 24M values (93 MB) of memory for the forward pass. The rows on the slides, "
    "like the rows above, add up to {values_millions:.1f}M."
)
_SINGLE_SCALE = "1 network at one scale, validation set"
_MULTI_SCALE = "1 network at several scales, validation set"

PUBLISHED_RESULTS = {
    "lenet5": PublishedResult(1998),
    "convnetjs": PublishedResult(2014),
    "alexnet": PublishedResult(2012, 15.4, "7 networks, validation set; one alone 18.2"),
    "zfnet": PublishedResult(2013, 14.8, "6 networks, test set"),
    "vgg-a": PublishedResult(2014, 10.4, _SINGLE_SCALE),
    "vgg-a-lrn": PublishedResult(2014, 10.5, _SINGLE_SCALE),
    "vgg-b": PublishedResult(2014, 9.9, _SINGLE_SCALE),
    "vgg-c": PublishedResult(2014, 9.4, _SINGLE_SCALE),
    "vgg-d": PublishedResult(2014, 7.3, "ILSVRC entry, 7 networks", _LECTURE_NOTE),
    "vgg-e": PublishedResult(2014, 7.3, "ILSVRC entry, 7 networks"),
    "googlenet": PublishedResult(2014, 6.67, "ILSVRC entry, 7 networks"),
    "resnet18": PublishedResult(2015),
    "resnet34": PublishedResult(2015, 5.71, _MULTI_SCALE),
    "resnet50": PublishedResult(2015, 5.25, _MULTI_SCALE),
    "resnet101": PublishedResult(2015, 4.60, _MULTI_SCALE),
    "resnet152": PublishedResult(2015, 3.57, "ILSVRC entry, 6 networks; one alone 4.49"),
    "resnet9": PublishedResult(2018),
    **{f"cifar-resnet{depth}": PublishedResult(2015) for depth in (20, 32, 44, 56, 110)},
}
