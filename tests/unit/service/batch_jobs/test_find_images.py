"""Every kind of input gives its images once and always in one order; what cannot be meant is told."""

import io
import tarfile
from pathlib import Path

import pytest

from service.batch_jobs.find_images import BESIDE, OUTPUTS, find_images
from service.errors import CannotStart, ConvoyError
from tests.support.images import image_bytes


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/{b,a}/{2,1}.png with a text file and a hidden one between them."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.PNG", "a/2.jpg", "a/1.webp", "a/notes.txt", ".git/x.png", "a/.hidden.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes())
    return tmp_path


def names(*inputs: str) -> list[str]:
    return [found.name for found in find_images(inputs).images]


ALL = ["photos/a/1.webp", "photos/a/2.jpg", "photos/b/1.PNG", "photos/b/2.png"]


def test_a_folder_gives_its_images_in_order_and_counts_the_rest(here: Path) -> None:
    assert names("photos") == ALL
    assert find_images(["photos"]).skipped == 1


def test_a_glob_takes_all_that_it_names(here: Path) -> None:
    assert names("photos/a/*") == ["photos/a/1.webp", "photos/a/2.jpg", "photos/a/notes.txt"]
    assert names("photos/**/*.png") == ["photos/b/2.png"]


def test_a_list_keeps_its_own_order_and_its_comments_to_itself(here: Path) -> None:
    Path("list.txt").write_text("# the best ones\nphotos/b/2.png\n\nphotos/gone.png\nphotos/a/1.webp\n")
    assert names("list.txt") == ["photos/b/2.png", "photos/gone.png", "photos/a/1.webp"]


def test_what_jobs_leave_among_the_images_is_passed_over(here: Path) -> None:
    made = [f"r{output}{kind}" for output in OUTPUTS for kind in ("", *BESIDE)]
    for name in made:
        (here / "photos/b" / name).write_bytes(image_bytes())
    for given in ("photos", "photos/b/*", f"file://{here}/photos/b"):
        assert not any(name.endswith(tuple(made)) for name in names(given)), given
        assert find_images([given]).skipped >= len(made)
    assert names("photos") == ALL
    assert names("photos/b/r.csv.confusion.png"), "who names one by itself means it"


def test_a_image_named_twice_counts_once(here: Path) -> None:
    assert names("photos", "photos/a/1.webp", "photos/**/*.jpg") == ALL


def test_a_tar_gives_where_each_image_lies(here: Path) -> None:
    wanted, other = image_bytes(seed=1), image_bytes(seed=2)
    with tarfile.open("some.tar", "w") as tar:
        for name, content in (("7/b.png", other), ("7/a.png", other), ("7/a.png", wanted), ("7/x.txt", b"text")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = find_images(["some.tar"])
    assert [one.name for one in found.images] == ["some.tar::7/a.png", "some.tar::7/b.png"]
    assert found.skipped == 1
    first = found.images[0]
    content = Path(first.path).read_bytes()[first.offset : first.offset + first.size]
    assert content == wanted, "of two with one name the later counts, as when unpacked"


def test_a_bucket_gives_its_objects_by_url(here: Path) -> None:
    url = f"file://{here}/photos"
    assert names(url) == [
        f"{url}/{name}" for name in (".git/x.png", "a/.hidden.png", "a/1.webp", "a/2.jpg", "b/1.PNG", "b/2.png")
    ]
    assert names(f"{url}/b/2.png") == [f"{url}/b/2.png"]


def test_folders_behind_links_are_seen_and_circles_end(here: Path) -> None:
    (here / "photos/a/again").symlink_to(here / "photos/b", target_is_directory=True)
    (here / "photos/b/up").symlink_to(here / "photos", target_is_directory=True)
    assert len(names("photos")) == len(ALL)


MISTAKES = {
    "nothing there": ("none", "does not exist, and no file matches"),
    "no match": ("photos/*.tiff", "does not exist, and no file matches"),
    "packed": ("photos.tar.gz", "is packed"),
    "no tar": ("broken.tar", "cannot be read as a tar"),
    "no text": ("list.lst", "it is not UTF-8 text"),
    "empty": ("empty", "There is no image in empty"),
    "no bucket": ("http://host/photos", "'http://' cannot be read"),
    "empty bucket": ("file:///nowhere/at/all", "cannot be read"),
}


@pytest.mark.parametrize(("given", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told(here: Path, given: str, says: str) -> None:
    Path("empty").mkdir()
    for name in ("photos.tar.gz", "broken.tar", "list.lst"):
        Path(name).write_bytes(b"\xff\xfe nothing of the kind")
    with pytest.raises(ConvoyError, match=says):
        find_images([given])


def test_only_other_files_is_told_with_their_number(here: Path) -> None:
    Path("docs").mkdir()
    Path("docs/readme.md").write_text("text")
    with pytest.raises(CannotStart) as told:
        find_images(["docs"])
    assert "Passed over: 1" in told.value.hint
