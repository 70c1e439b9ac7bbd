"""Every kind of input yields its images once and in a stable order; invalid inputs are rejected."""

import errno
import glob
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from service.batch_jobs.errors import CannotStartJob
from service.batch_jobs.find_images import find_images
from service.batch_jobs.job_file_names import OUTPUT_SUFFIXES, SIDECAR_SUFFIXES
from service.errors import ConvoyError
from tests.support.images import image_bytes


@pytest.fixture
def image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns photos/{b,a}/{2,1}.png, with a text file and a hidden file between them."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.PNG", "a/2.jpg", "a/1.webp", "a/notes.txt", ".git/x.png", "a/.hidden.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes())
    return tmp_path


def list_names(*inputs: str) -> list[str]:
    return [image.name for image in find_images(inputs).images]


ALL = ["photos/a/1.webp", "photos/a/2.jpg", "photos/b/1.PNG", "photos/b/2.png"]


def test_images_of_a_folder_are_sorted_and_other_files_counted(image_folder: Path) -> None:
    assert list_names("photos") == ALL
    assert find_images(["photos"]).skipped == 1


def test_images_in_formats_that_are_not_read_are_listed(image_folder: Path) -> None:
    """Each is reported as unreadable. Otherwise, photos of a phone would be missing from the results without a word."""
    for name in ("photos/b/3.HEIC", "photos/b/4.tiff"):
        Path(name).write_bytes(b"anything")
    assert list_names("photos") == [*ALL, "photos/b/3.HEIC", "photos/b/4.tiff"]
    assert find_images(["photos"]).skipped == 1


def test_a_glob_takes_all_that_it_names(image_folder: Path) -> None:
    assert list_names("photos/a/*") == ["photos/a/1.webp", "photos/a/2.jpg", "photos/a/notes.txt"]
    assert list_names("photos/**/*.png") == ["photos/b/2.png"]


@pytest.mark.parametrize(
    "pattern",
    ["photos/**", "photos/**/*.*", "**/*.*", "*/**/*.*", "photos/**/*/**/*", "{folder}/photos/**/?/*.*", "**"],
)
def test_a_recursive_glob_matches_like_pythons_glob(image_folder: Path, pattern: str) -> None:
    """This includes folders whose names are patterns, but not hidden folders."""
    for name in ("photos/[ab]/1.png", "photos/a/deep/er/*.png", "photos/.hidden/1.png", "photos/a/.1.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(image_bytes())
    pattern = pattern.format(folder=image_folder)
    expected = sorted({path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)})
    assert list_names(pattern) == expected
    assert len(expected) >= 5


def test_a_glob_of_any_depth_finds_hidden_folders_that_it_names(image_folder: Path) -> None:
    for name in ("photos/a/.cache/1.png", "photos/.cache/2.png"):
        Path(name).parent.mkdir()
        Path(name).write_bytes(image_bytes())
    assert list_names("photos/**/.cache/*.png") == ["photos/.cache/2.png", "photos/a/.cache/1.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("head", ["", "# the best ones\n"])
def test_a_list_keeps_its_order_without_comments(image_folder: Path, head: str, encoding: str) -> None:
    Path("list.txt").write_text(f"{head}photos/b/2.png\n\nphotos/gone.png\nphotos/a/1.webp\n", encoding=encoding)
    assert list_names("list.txt") == ["photos/b/2.png", "photos/gone.png", "photos/a/1.webp"]


def test_files_of_jobs_among_the_images_are_skipped(image_folder: Path) -> None:
    job_files = [f"r{output}{suffix}" for output in OUTPUT_SUFFIXES for suffix in ("", *SIDECAR_SUFFIXES)]
    for name in job_files:
        (image_folder / "photos/b" / name).write_bytes(image_bytes())
    for source in ("photos", "photos/b/*", f"file://{image_folder}/photos/b"):
        assert not any(name.endswith(tuple(job_files)) for name in list_names(source)), source
        assert find_images([source]).skipped >= len(job_files)
    assert list_names("photos") == ALL
    assert list_names("photos/b/r.csv.confusion.png"), "a file that is named explicitly is used"


def test_an_image_named_twice_counts_once(image_folder: Path) -> None:
    assert list_names("photos", "photos/a/1.webp", "photos/**/*.jpg") == ALL


def test_images_of_a_tar_are_found_with_their_offsets(image_folder: Path) -> None:
    expected, other = image_bytes(seed=1), image_bytes(seed=2)
    with tarfile.open("some.tar", "w") as tar:
        for name, content in (("7/b.png", other), ("7/a.png", other), ("7/a.png", expected), ("7/x.txt", b"text")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    listing = find_images(["some.tar"])
    assert [image.name for image in listing.images] == ["some.tar::7/a.png", "some.tar::7/b.png"]
    assert listing.skipped == 1
    first = listing.images[0]
    content = Path(first.path).read_bytes()[first.offset : first.offset + first.size]
    assert content == expected, "of two members with one name the later counts, as in unpacking"


def test_a_bucket_gives_its_objects_by_url(image_folder: Path) -> None:
    url = f"file://{image_folder}/photos"
    assert list_names(url) == [
        f"{url}/{name}" for name in (".git/x.png", "a/.hidden.png", "a/1.webp", "a/2.jpg", "b/1.PNG", "b/2.png")
    ]
    assert list_names(f"{url}/b/2.png") == [f"{url}/b/2.png"]


def test_folders_behind_links_are_seen(image_folder: Path) -> None:
    (image_folder / "photos/a/again").symlink_to(image_folder / "photos/b", target_is_directory=True)
    (image_folder / "photos/a/same.jpg").symlink_to(image_folder / "photos/a/2.jpg")
    listing = find_images(["photos"])
    assert {image.name for image in listing.images} == {
        "photos/a/1.webp",
        "photos/a/2.jpg",
        "photos/a/same.jpg",
        "photos/a/again/1.PNG",
        "photos/a/again/2.png",
    }
    assert listing.irregular == []


def test_links_out_of_the_folder_and_to_folders_above_are_passed_over(image_folder: Path) -> None:
    outside = image_folder / "photos-of-others"
    outside.mkdir()
    (outside / "secret.png").write_bytes(image_bytes())
    links = {
        "photos/a/secret.png": outside / "secret.png",
        "photos/a/lost.png": image_folder / "nowhere.png",
        "photos/a/folder": outside,
        "photos/b/self": image_folder / "photos/b",
        "photos/b/up": image_folder / "photos",
        "photos/b/top": Path("/"),
    }
    for name, target in links.items():
        Path(name).symlink_to(target)
    Path("photos/b/notes.txt").symlink_to(outside / "notes.txt")
    without_links = find_images(["photos-of-others"]).skipped
    listing = find_images(["photos"])
    assert [image.name for image in listing.images] == ALL
    assert sorted(listing.irregular) == sorted(links)
    assert without_links == 0
    for pattern in ("photos/**", "photos/**/*.*", "phot?s/**", f"{image_folder}/photos/**"):
        listing = find_images([pattern])
        names = [image.name.removeprefix(f"{image_folder}/") for image in listing.images]
        assert names == sorted([*ALL, "photos/a/notes.txt"])
        irregular = {path.removeprefix(f"{image_folder}/") for path in listing.irregular}
        assert irregular == links.keys() | {"photos/b/notes.txt"}
    assert [image.name for image in find_images(["photos/b/**", "photos/**/folder/*"]).images] == ALL[2:]
    for pattern in ("photos/*/*.*", "./photos/*/*.*", f"{image_folder}/photos/?/*.*"):
        listing = find_images([pattern])
        names = [image.name.removeprefix(f"{image_folder}/").removeprefix("./") for image in listing.images]
        assert names == sorted([*ALL, "photos/a/notes.txt"])
        assert {Path(path).name for path in listing.irregular} == {"secret.png", "lost.png", "notes.txt"}
    listing = find_images(["photos/*/**"])
    assert [image.name for image in listing.images] == sorted([*ALL, "photos/a/notes.txt"])
    assert "photos/a/folder" in listing.irregular
    for pattern in ("photos/?/folder/**", "photos/b/u?/**"):
        with pytest.raises(CannotStartJob) as raised:
            find_images([pattern])
        assert "is a pipe, a device, a link" in raised.value.hint
    Path("self").symlink_to(".")
    assert len(find_images(["self/photos/b/*.png"]).images) == 1
    Path("br[1]").mkdir()
    Path("br[1]/out.png").symlink_to(image_folder / "photos/b/2.png")
    Path("br[1]/1.png").write_bytes(image_bytes())
    assert find_images(["br[[]1]/*.png"]).irregular == ["br[1]/out.png"]
    listing = find_images(["photos/a/1.webp", "photos/*/*/*.png", "photos/*/*/a/*.png"])
    assert [image.name for image in listing.images] == ["photos/a/1.webp"]
    irregular = {
        "photos/a/folder/secret.png",
        "photos/b/self/2.png",
        "photos/b/up/a/secret.png",
        "photos/b/up/a/lost.png",
    }
    assert set(listing.irregular) == irregular
    assert "photos/a/folder/secret.png" in find_images(["photos", "photos/**/folder/*"]).irregular


def test_a_glob_follows_links_within_its_folder_once(image_folder: Path) -> None:
    Path("photos/a/again").symlink_to(image_folder / "photos/b", target_is_directory=True)
    expected = ["photos/a/1.webp", "photos/a/2.jpg", "photos/a/again/1.PNG", "photos/a/again/2.png"]
    assert list_names("photos/**/*.[wjpP]*") == expected


MISTAKES = {
    "nothing there": ("none", "does not exist, and no file matches"),
    "no match": ("photos/*.tiff", "does not exist, and no file matches"),
    "packed": ("photos.tar.gz", "is compressed"),
    "no tar": ("broken.tar", "cannot be read as a tar"),
    "no text": ("list.lst", "it is not UTF-8 text"),
    "empty": ("empty", "There is no image in empty"),
    "no bucket": ("http://host/photos", "'http://' cannot be read"),
    "empty bucket": ("file:///nowhere/at/all", "cannot be read"),
}


@pytest.mark.parametrize(("source", "message"), MISTAKES.values(), ids=MISTAKES)
def test_an_error_is_reported(image_folder: Path, source: str, message: str) -> None:
    Path("empty").mkdir()
    for name in ("photos.tar.gz", "broken.tar", "list.lst"):
        Path(name).write_bytes(b"\xff\xfe nothing of the kind")
    with pytest.raises(ConvoyError, match=message):
        find_images([source])


def test_only_other_files_are_reported_with_their_number(image_folder: Path) -> None:
    Path("docs").mkdir()
    Path("docs/readme.md").write_text("text")
    with pytest.raises(CannotStartJob) as excinfo:
        find_images(["docs"])
    assert "Skipped: 1" in excinfo.value.hint


@pytest.fixture
def irregular_paths(image_folder: Path) -> list[str]:
    """Returns a pipe, a link to it and a link to a device, all named like images."""
    os.mkfifo("photos/a/pipe.png")
    Path("photos/a/link.png").symlink_to("pipe.png")
    Path("photos/b/device.png").symlink_to("/dev/zero")
    return ["photos/a/link.png", "photos/a/pipe.png", "photos/b/device.png"]


@pytest.mark.parametrize("sources", [["photos"], ["photos/*/*.*g*", "photos/*/*.webp", "photos/*/*.PNG"]])
def test_pipes_and_devices_are_passed_over_and_named(irregular_paths: list[str], sources: list[str]) -> None:
    listing = find_images(sources)
    assert sorted(image.name for image in listing.images) == ALL
    assert sorted(listing.irregular) == irregular_paths


def test_pipes_and_devices_of_a_bucket_are_passed_over(image_folder: Path, irregular_paths: list[str]) -> None:
    url = f"file://{image_folder}/photos"
    assert sorted(find_images([url]).irregular) == [path.replace("photos", url, 1) for path in irregular_paths]


@pytest.mark.parametrize("name", ["photos/a/pipe.png", "pipe.txt", "pipe.tar", "/dev/zero"])
def test_a_pipe_or_device_by_itself_is_rejected(irregular_paths: list[str], name: str) -> None:
    if name.startswith("pipe"):
        os.mkfifo(name)
    with pytest.raises(CannotStartJob) as excinfo:
        find_images([name])
    assert f"{name} is a pipe, a device" in excinfo.value.hint


def test_links_that_lead_nowhere_or_in_a_circle_are_images_that_cannot_be_read(image_folder: Path) -> None:
    Path("photos/a/lost.png").symlink_to("nowhere.png")
    Path("photos/a/circle.png").symlink_to("circle.png")
    assert set(list_names("photos")) - set(ALL) == {"photos/a/lost.png", "photos/a/circle.png"}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN])
def test_an_unreachable_mount_is_distinguished_from_a_missing_input(
    image_folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if path == "photos":
            raise OSError(number, os.strerror(number), path)
        return sound(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        find_images(["photos"])
    assert raised.value.errno == number
