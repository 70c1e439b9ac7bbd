"""The test set of a folder: about a fraction of each class, drawn by path, so that added images do not move others."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.images import write_image_folder
from training.data.datasets.folder_listing import LabeledFiles, list_images
from training.data.datasets.folder_test_split import count_missing, fingerprints, split_test_files


def files_per_class(*counts: int) -> LabeledFiles:
    """Returns a listing with this many files per class."""
    paths = [f"{number}/{i:04}.jpg" for number, count in enumerate(counts) for i in range(count)]
    return LabeledFiles(paths, np.repeat(np.arange(len(counts)), counts))


def test_the_test_share_is_of_every_class_and_drawn_by_the_seed() -> None:
    files = files_per_class(4000, 400, 3, 2, 1)
    train, test = split_test_files(files, 0.25, seed=1)
    large, medium, *small = np.bincount(test.classes, minlength=5).tolist()
    assert large == pytest.approx(1000, abs=4 * 27.4)  # four standard deviations of the binomial distribution
    assert medium == pytest.approx(100, abs=4 * 8.7)
    assert 1 <= small[0] <= 2
    assert small[1:] == [1, 0]
    assert sorted([*train.paths, *test.paths]) == sorted(files.paths)
    assert list(test.paths) == sorted(test.paths)
    assert split_test_files(files, 0.25, seed=1)[1].paths == test.paths
    assert split_test_files(files, 0.25, seed=2)[1].paths != test.paths


@pytest.mark.parametrize("share", [0.001, 0.2, 0.999])
def test_each_part_has_an_image_of_every_class_that_has_two(share: float) -> None:
    files = files_per_class(*range(2, 40))
    for part in split_test_files(files, share, seed=1):
        assert (np.bincount(part.classes, minlength=38) > 0).all()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_added_images_do_not_change_the_split_of_others(share: float) -> None:
    """A training image of a published version must not become an image on which the version is compared."""
    files = files_per_class(*[200] * 5)
    more = [f"{path}-{n}" for path in files.paths[::5] for n in range(2)]
    larger = LabeledFiles([*files.paths, *more], np.concatenate([files.classes, np.repeat(files.classes[::5], 2)]))
    for seed in range(5):
        before, after = (split_test_files(some, share, seed) for some in (files, larger))
        assert set(before[0].paths) <= set(after[0].paths)
        assert set(before[1].paths) <= set(after[1].paths)
        assert len(after[1]) > len(before[1])


def test_no_training_image_of_a_small_class_becomes_a_test_image() -> None:
    """A new image can replace the only test image of a small class, which then becomes a training image."""
    moved_to_training = 0
    for seed in range(400):
        before, after = (split_test_files(files_per_class(count), 0.2, seed) for count in (5, 9))
        assert not set(before[0].paths) & set(after[1].paths)
        moved_to_training += len(set(before[1].paths) & set(after[0].paths))
    assert 0 < moved_to_training < 100


def test_fingerprints_find_out_which_files_are_gone_or_have_changed(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=5)
    paths = list_images(tmp_path).train.paths
    recorded = fingerprints(tmp_path, paths[:6])
    assert count_missing(recorded, tmp_path, paths) == (0, 6)
    assert count_missing(recorded, tmp_path, paths[2:]) == (2, 6)
    (tmp_path / paths[5]).write_bytes(b"shorter")
    assert count_missing(recorded, tmp_path, paths) == (1, 6)
