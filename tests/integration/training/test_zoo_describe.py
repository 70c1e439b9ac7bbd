"""`convoy-train describe`: output, plot and errors, and low memory use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.imaging.decode import decode
from training.cli import main


def convoy_train(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["describe", *arguments], catch_exceptions=False)


def test_one_network_is_described_in_a_table() -> None:
    result = convoy_train("lenet5", "--input", "32x32x3", "--classes", "7", "--batch", "8")
    assert result.exit_code == 0
    header, _, columns, *rows = result.output.splitlines()
    assert header.startswith("lenet5: 32x32x3 pixels, 7 classes")
    assert columns.split()[:3] == ["layer", "name", "output"]
    assert rows[0].split()[:3] == ["INPUT", "image", "32x32x3"]
    assert "8 images" in result.output


def test_several_stand_side_by_side_also_as_json() -> None:
    networks = ["alexnet", "vgg-d", "googlenet", "resnet152"]
    lines = convoy_train(*networks).output.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == networks
    described = json.loads(convoy_train(*networks, "--json").output)
    assert [network["published"]["top5_error_percent"] for network in described] == [15.4, 7.3, 6.67, 3.57]


def test_xo_as_one_image(tmp_path: Path) -> None:
    path = tmp_path / "maps.png"
    result = convoy_train("xo", "--maps", str(path), "--kernels", "identity,sobel_x")
    assert result.exit_code == 0
    assert decode(path.read_bytes(), channels=1, background=0, max_pixels=10**7).max() == 255


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["resnet-50"], "There is no network named 'resnet-50'; did you mean 'resnet50'?"),
        (["vgg-d", "--input", "16x16x3"], "vgg-d needs images of at least 32 pixels per side; 16x16 is too small."),
        (["lenet5", "--input", "28x28"], "'28x28' is not an input size"),
        (["lenet5", "--maps", "x.png"], "--maps works only for the X/O network"),
        (["xo", "--kernels", "sobel_x"], "--kernels selects what --maps draws: add --maps FILE."),
        (["xo", "--maps", "nowhere/x.png"], "nowhere/x.png could not be written: No such file or directory."),
        (["models/nothing/1"], "models/nothing/1 is neither a version folder"),
    ],
)
def test_errors_are_reported_in_one_sentence(arguments: list[str], error: str) -> None:
    result = convoy_train(*arguments)
    assert result.exit_code == 2
    assert f"Error: {error}" in result.output
    assert "Traceback" not in result.output


def test_the_largest_networks_take_no_memory() -> None:
    """VGG-19 and ResNet-152 have 780 MiB of weights. The process may use less than a quarter of this in addition to
    Keras."""
    code = (
        "import resource, sys, training.keras_setup, training.architectures, training.analysis.keras_costs\n"
        "from training.cli import main\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "main(['describe', 'vgg-e', 'resnet152'], standalone_mode=False)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "print(grown / 1024, file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert "resnet152" in run.stdout
    assert float(run.stderr.split()[-1]) < 200
