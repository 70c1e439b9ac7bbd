"""The name of the folder that contains an image is its expected label."""

import pytest

from service.batch_jobs.expected_labels import FolderLabels

LABELS = ("tench", "Afghan hound", "7")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("photos/tench/1.png", "tench"),
        ("photos/afghan_hound/1.png", "Afghan hound"),
        ("s3://bucket/7/1.png", "7"),
        ("digits.tar::7/1.png", "7"),
        ("7/digits.tar::1.png", None),
        ("7/deeper/1.png", None),
        ("7.png", None),
    ],
)
def test_the_folder_right_above_an_image_may_be_its_label(name: str, label: str | None) -> None:
    assert FolderLabels(LABELS).label_for(name) == label
