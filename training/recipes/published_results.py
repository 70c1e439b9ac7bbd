"""What the papers report of the networks: the year, and the top-5 error on ImageNet where there is one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """`measured` says of what the error is: entries to the contest (ILSVRC) are ensembles, no match for one network."""

    year: int
    top5_error_percent: float | None = None
    measured: str = ""
    note: str = ""
    """What to know of the printed figures, with {values_millions} for the sum of the rows at the published size."""


_LECTURE = (
    "The slides that this table is known from print 24M values (93 MB) of memory for the forward pass; their rows, "
    "like the ones above, add up to {values_millions:.1f}M."
)
_ONE_SCALE = "1 network at one scale, validation set"
_SCALES = "1 network at several scales, validation set"

PUBLISHED = {
    "lenet5": Published(1998),
    "convnetjs": Published(2014),
    "alexnet": Published(2012, 15.4, "7 networks, validation set; one alone 18.2"),
    "zfnet": Published(2013, 14.8, "6 networks, test set"),
    "vgg-a": Published(2014, 10.4, _ONE_SCALE),
    "vgg-a-lrn": Published(2014, 10.5, _ONE_SCALE),
    "vgg-b": Published(2014, 9.9, _ONE_SCALE),
    "vgg-c": Published(2014, 9.4, _ONE_SCALE),
    "vgg-d": Published(2014, 7.3, "ILSVRC entry, 7 networks", _LECTURE),
    "vgg-e": Published(2014, 7.3, "ILSVRC entry, 7 networks"),
    "googlenet": Published(2014, 6.67, "ILSVRC entry, 7 networks"),
    "resnet18": Published(2015),
    "resnet34": Published(2015, 5.71, _SCALES),
    "resnet50": Published(2015, 5.25, _SCALES),
    "resnet101": Published(2015, 4.60, _SCALES),
    "resnet152": Published(2015, 3.57, "ILSVRC entry, 6 networks; one alone 4.49"),
    "resnet9": Published(2018),
    **{f"cifar-resnet{depth}": Published(2015) for depth in (20, 32, 44, 56, 110)},
}
