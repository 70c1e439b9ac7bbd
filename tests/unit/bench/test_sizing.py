"""The table of memory and CPU is read as it is written, and the formula scales with the workers."""

import io
from pathlib import Path

import pytest
from PIL import Image

from service.model_store.manifest import read_manifest
from tests.bench.sizing.clients import BATCH_IMAGES, batch, photograph, single
from tests.bench.sizing.formula import as_table, limit_mib, measured_sizes
from tests.bench.sizing.measure import Size
from tests.support.model_versions import write_version

SIZES = [Size("pets", 44.7, 1, 300, 1_100, 1_464, 31.25), Size("pets", 44.7, 2, 600, 2_000, 2_500, 31.5)]


def test_the_table_is_read_as_it_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"| other | 1 |\n<!-- sizing: begin -->\n\n{as_table(SIZES)}\n\n<!-- sizing: end -->\n")
    assert measured_sizes(page) == SIZES


def test_the_limit_grows_with_the_workers_and_leaves_room() -> None:
    assert limit_mib(SIZES[0], 1) == 1830
    assert limit_mib(SIZES[0], 4) == 7320


@pytest.mark.parametrize(("shape", "kind", "size"), [((28, 20, 1), "PNG", (20, 28)), ((64, 64, 3), "JPEG", (500, 375))])
def test_images_match_the_input_of_the_model(
    tmp_path: Path, shape: tuple[int, int, int], kind: str, size: tuple[int, int]
) -> None:
    manifest = read_manifest(write_version(tmp_path, "pets", 1, shape=shape))
    data = photograph(manifest)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == (kind, size)
    assert single("pets", data).images == 1
    assert batch("pets", data).body.count(data) == batch("pets", data).images == BATCH_IMAGES
