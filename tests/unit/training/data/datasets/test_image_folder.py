"""Images in folders are decoded as in the service, split with a seed, and not changed by the cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.imaging.decode import decode
from service.imaging.preprocess import preprocess
from service.model_store.manifest import Input, Preprocessing
from tests.support.images import write_image_folder
from training.data.datasets.folder_listing import FolderListing, list_images
from training.data.datasets.image_files import InputSpec, crop_and_resize
from training.data.datasets.image_folder import FolderOptions, FolderSplit, evaluation_dataset, training_dataset
from training.data.datasets.memory_cache import ImageCache
from training.errors import TrainingError

MODEL_INPUT = Input(height=24, width=32, channels=3)
PREPROCESSING = Preprocessing(resize="shorter", shorter=40)
FOLDER_OPTIONS = FolderOptions(InputSpec(MODEL_INPUT, PREPROCESSING), test_share=0.25, seed=1)


def middle(index: int, width: int, height: int) -> tuple[float, float, float, float]:
    return width / 4, height / 4, width * 3 / 4, height * 3 / 4


def open_split(folder: Path, cache_bytes: int = 0) -> FolderSplit:
    return FolderSplit(folder, list_images(folder).train, FOLDER_OPTIONS.input_spec, ImageCache(cache_bytes))


def test_every_format_is_decoded_as_in_the_service(tmp_path: Path) -> None:
    split = open_split(write_image_folder(tmp_path, "red", "blue"))
    indices = np.arange(len(split))
    images = split.read_images(indices)
    assert images.shape == (12, 24, 32, 3)
    for index in indices:
        preprocessed = preprocess(
            decode(split.encoded_image(index), 3, PREPROCESSING.background, 10**6), MODEL_INPUT, PREPROCESSING
        )
        np.testing.assert_array_equal(images[index], preprocessed)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=1)
    tall = Image.new("RGB", (40, 80), "white")
    tall.paste("black", (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated clockwise: the black half is then on the right
    tall.save(tmp_path / "red" / "000.jpg", exif=exif)
    listing = list_images(tmp_path)
    [index] = [i for i, path in enumerate(listing.train.paths) if path.startswith("red")]
    image = open_split(tmp_path).read_images(np.array([index]))[0]
    assert image[:, :8].min() > 200
    assert image[:, -8:].max() < 50


def test_parts_are_cut_from_the_whole_image(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=1)
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[12:36, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "blue" / "000.png")
    (tmp_path / "blue" / "000.jpg").unlink()
    part = open_split(tmp_path).read_crops(np.array([0]), middle)
    assert part.shape == (1, 24, 32, 3)
    assert (part == 255).all()


def test_large_images_are_reduced_before_they_are_cut(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=1)
    Image.new("RGB", (900, 600)).save(tmp_path / "blue" / "000.jpg")
    sizes: list[tuple[int, int]] = []

    def record_size(index: int, width: int, height: int) -> tuple[float, float, float, float]:
        sizes.append((width, height))
        return middle(index, width, height)

    open_split(tmp_path).read_crops(np.array([0, 1]), record_size)
    assert sizes[0] == (96, 64)  # 2 x 32 on the shorter side
    assert min(sizes[1]) >= 40  # and small images are not enlarged


def test_the_smallest_parts_are_cut_from_images_large_enough_for_them(tmp_path: Path) -> None:
    """Crops of 8% of the area, cut from images of twice the input's size, would be enlarged and on average 3 levels
    off."""
    write_image_folder(tmp_path, "red", "blue", count=1)
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    large = Image.fromarray(noise).resize((900, 600), Image.Resampling.BICUBIC)
    large.save(tmp_path / "blue" / "000.png")
    (tmp_path / "blue" / "000.jpg").unlink()

    def part(index: int, width: int, height: int) -> tuple[float, float, float, float]:
        side = 0.08**0.5
        return 0.3 * width, 0.4 * height, (0.3 + side) * width, (0.4 + side) * height

    split = open_folder(tmp_path, replace(FOLDER_OPTIONS, min_crop_area=0.08)).train
    blue = next(i for i in range(len(split)) if split.labels[i] == 0)
    exact = crop_and_resize(np.asarray(large), part(0, 900, 600), 24, 32)
    found = split.read_crops(np.array([blue]), part)[0]
    reduced_too_far = open_folder(tmp_path, FOLDER_OPTIONS).train.read_crops(np.array([blue]), part)[0]
    assert np.abs(found.astype(float) - exact).mean() < 0.6 * np.abs(reduced_too_far.astype(float) - exact).mean()


def test_a_cache_of_any_size_changes_nothing(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue")
    indices = np.array([3, 11, 0, 3])
    without, some, whole = (open_split(tmp_path, cache_bytes) for cache_bytes in (0, 20_000, 10**9))
    for _ in range(2):
        np.testing.assert_array_equal(without.read_images(indices), some.read_images(indices))
        np.testing.assert_array_equal(without.read_images(indices), whole.read_images(indices))
        np.testing.assert_array_equal(without.read_crops(indices, middle), some.read_crops(indices, middle))
        np.testing.assert_array_equal(without.read_crops(indices, middle), whole.read_crops(indices, middle))
        np.testing.assert_array_equal(without.read_crops(indices, middle, 9), whole.read_crops(indices, middle, 9))


def test_every_damaged_file_is_named_with_its_reason(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue")
    whole = (tmp_path / "blue" / "000.jpg").read_bytes()
    (tmp_path / "blue" / "000.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "red" / "notes.txt").write_text("nothing to see")
    (tmp_path / "red" / "000.jpg").unlink()
    (tmp_path / "red" / "000.jpg").symlink_to("gone.jpg")
    split = open_split(tmp_path)
    reasons = sorted(split.find_unreadable(np.arange(len(split))).values())
    assert [line.split(":")[0] for line in reasons] == ["blue/000.jpg", "red/000.jpg", "red/notes.txt"]
    assert "truncated" in reasons[0]
    assert "No such file" in reasons[1]
    assert "not an image" in reasons[2]
    rest = split.without(list(split.find_unreadable(np.arange(len(split)))))
    assert len(rest) == len(split) - 3
    assert not rest.find_unreadable(np.arange(len(rest)))


def test_a_digest_distinguishes_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=5)
    split, indices = open_split(tmp_path), np.arange(4)
    first = split.digest(indices)
    assert open_split(tmp_path).digest(indices) == first
    assert split.digest(indices[1:]) != first
    Image.new("RGB", (50, 50)).save(tmp_path / "red" / "zzz.png")
    assert open_split(tmp_path).digest(indices) == first, "another image does not change the digest"
    with (tmp_path / "blue" / "000.jpg").open("ab") as file:
        file.write(b"\0")
    assert open_split(tmp_path).digest(indices) != first


def open_folder(folder: Path, folder_options: FolderOptions = FOLDER_OPTIONS):
    return training_dataset("folder", "Mine", list_images(folder), folder_options, ImageCache(0))


def test_a_recorded_test_set_stays_when_images_are_added(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=8)
    first = open_folder(tmp_path)
    recorded = first.origin["test_files"]
    assert len(recorded) == len(first.test) == 4
    Image.new("RGB", (50, 50)).save(tmp_path / "red" / "aaa.png")
    again = open_folder(tmp_path, FolderOptions(FOLDER_OPTIONS.input_spec, 0.5, 9, recorded))
    assert again.origin["test_files"] == recorded
    assert len(again.train) == 13
    np.testing.assert_array_equal(again.test.read_images(np.arange(4)), first.test.read_images(np.arange(4)))
    (tmp_path / recorded[0]).unlink()
    with pytest.raises(TrainingError, match=rf"lacks 1 of the run's test images: {recorded[0]}"):
        open_folder(tmp_path, FolderOptions(FOLDER_OPTIONS.input_spec, 0.5, 9, recorded))


def test_imagenets_val_is_the_test_set(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "train", "red", "blue", count=3)
    write_image_folder(tmp_path / "val", "red", count=2)
    dataset = open_folder(tmp_path)
    assert (len(dataset.train), dataset.test.labels.tolist()) == (6, [1, 1])
    assert "test_files" not in dataset.origin


def test_a_network_is_measured_by_the_names_of_its_classes(tmp_path: Path) -> None:
    listing = list_images(write_image_folder(tmp_path, "red", "blue", count=1))
    dataset = evaluation_dataset("folder", "Mine", listing, ("red", "green", "blue"), FOLDER_OPTIONS.input_spec)
    assert dataset.test.labels.tolist() == [2, 0]
    assert not dataset.is_test_set
    twins = FolderListing(tmp_path, ("crane", "crane"), listing.train, None)
    assert evaluation_dataset(
        "folder", "Mine", twins, ("crane", "crane"), FOLDER_OPTIONS.input_spec
    ).test.labels.tolist() == [0, 1]
    with pytest.raises(TrainingError, match="classes that the network does not have: red"):
        evaluation_dataset("folder", "Mine", listing, ("blue", "green"), FOLDER_OPTIONS.input_spec)
