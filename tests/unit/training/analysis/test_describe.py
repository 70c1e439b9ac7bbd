"""`describe`: VGG-16's table from lectures, totals of known networks, comparisons, JSON, and errors."""

import json
from pathlib import Path

import pytest

from tests.support.model_versions import write_version
from training.analysis.describe import as_json, as_table, describe, describe_targets, parse_shape, side_by_side
from training.errors import TrainingError
from training.recipes.published_results import PUBLISHED_RESULTS

GOLDEN = Path(__file__).parents[3] / "golden"


def golden(name: str):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def test_vgg16_row_by_row_without_biases() -> None:
    description = describe("vgg-d")
    rows = [[row.layer, list(row.output), row.weights] for row in description.rows]
    assert rows == golden("vgg")["vgg16_d_table_without_biases"]
    assert description.weights == golden("vgg")["totals"]["parameters_without_biases"]


def test_vgg16_memory_is_summed_and_not_copied() -> None:
    """The slides' 24M is wrong; the sum of the rows is about 15.2M values, 58 MiB."""
    description = describe("vgg-d")
    assert round(description.values / 1e6, 1) == 15.2
    assert description.forward_bytes(1) - description.parameter_bytes == 4 * description.values
    table = as_table(description)
    (total,) = (line.split() for line in table.splitlines() if line.startswith("total"))
    assert total[1:4] == ["15,237,608", "58.13", "MiB"]
    assert table.splitlines()[-1].endswith("add up to 15.2M.")
    assert "24M" not in as_table(describe("vgg-d", (32, 32, 3)))


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        ("lenet5", 416_520),
        ("alexnet", 1_135_256_096),
        ("vgg-d", 15_470_264_320),
        ("resnet50", 3_857_973_248),  # the paper prints 3.8 billion
        ("resnet152", 11_282_415_616),  # 11.3 billion
    ],
)
def test_multiply_adds(name: str, multiply_adds: int) -> None:
    assert describe(name).multiply_adds == multiply_adds


def test_the_stride_in_the_3x3_costs_more() -> None:
    from training.analysis.keras_costs import layer_costs
    from training.architectures import build_without_weights

    rows = layer_costs(build_without_weights("resnet50", stride_in_3x3=True))
    assert sum(row.multiply_adds for row in rows) == 4_089_184_256  # the 4.1 billion that are usually stated for v1.5


def test_multiply_adds_of_googlenet_match_the_paper_within_its_rounding() -> None:
    description = describe("googlenet")
    for block in golden("googlenet")["inception"]:
        rows = [row for row in description.rows if row.name.startswith(block["block"])]
        printed = int(block["printed_ops"].removesuffix("M"))
        assert sum(row.multiply_adds for row in rows) / 1e6 == pytest.approx(printed, rel=0.08)
        assert sum(row.weights for row in rows) == block["weights_without_biases"]


@pytest.mark.parametrize("depth", ["resnet18", "resnet152"])
def test_batch_normalization_learns_two_values_a_channel_and_measures_two(depth: str) -> None:
    description = describe(depth)
    assert description.parameters == golden("resnet")["trainable_parameters"][depth]
    norms = [row for row in description.rows if row.layer == "BN"]
    assert sum(row.weights + row.biases for row in norms) == description.running_statistics > 0


def test_rounding_of_sizes_is_described() -> None:
    rounded = {row.name: row.rounding for row in describe("zfnet").rows if row.rounding}
    assert rounded == {"conv1": "floor", "pool1": "ceil", "pool2": "ceil"}
    assert [row.rounding for row in describe("xo").rows] == ["", "", "ceil", ""]
    assert not any(row.rounding for row in describe("vgg-d").rows)


def test_other_input_and_classes() -> None:
    description = describe("resnet18", (64, 48, 1), 7)
    assert description.input == (64, 48, 1)
    assert description.classes == 7
    assert description.rows[0].output == (64, 48, 1)
    assert description.rows[-1].output == (7,)


def test_published_errors_match_the_imagenet_results() -> None:
    source = golden("ilsvrc_top5_error")
    expected = {
        "alexnet": source["alexnet_2012_ensemble"],
        "zfnet": source["zfnet_2013"],
        "vgg-d": source["vgg_2014"],
        "googlenet": source["googlenet_2014"],
        "resnet152": source["resnet_2015"],
    }
    assert {name: PUBLISHED_RESULTS[name].top5_error_percent for name in expected} == expected
    assert str(source["alexnet_single"]) in PUBLISHED_RESULTS["alexnet"].evaluation


def test_side_by_side() -> None:
    names = ["alexnet", "vgg-d", "googlenet", "resnet152"]
    header, *lines = side_by_side([describe(name) for name in names]).splitlines()
    assert header.split()[:4] == ["network", "year", "input", "parameters"]
    assert [line.split()[0] for line in lines[:4]] == names
    assert [line.split()[1] for line in lines[:4]] == ["2012", "2014", "2014", "2015"]
    assert lines[0].split()[3:5] == ["62,378,344", "1,135,256,096"]
    assert "3.57%" in lines[3]


def test_json_says_all_that_the_table_says() -> None:
    as_dict = json.loads(describe_targets(["lenet5"], None, None, batch=4, json=True))
    assert as_dict == json.loads(json.dumps(as_json(describe("lenet5"), 4)))
    assert as_dict["totals"]["parameters"] == golden("lenet5")["parameters"]
    assert as_dict["totals"]["batch"] == 4
    assert sum(row["multiply_adds"] for row in as_dict["rows"]) == as_dict["totals"]["multiply_adds"]
    assert as_dict["published"]["year"] == 1998
    several = json.loads(describe_targets(["lenet5", "mlp"], None, None, batch=1, json=True))
    assert [network["name"] for network in several] == ["lenet5", "mlp"]


def test_totals_grow_with_the_batch() -> None:
    one, many = as_json(describe("lenet5"), 1)["totals"], as_json(describe("lenet5"), 10)["totals"]
    outputs = one["forward_bytes"] - one["parameter_bytes"]
    assert many["forward_bytes"] - many["parameter_bytes"] == 10 * outputs
    assert many["training_bytes"] - one["training_bytes"] == 9 * 2 * outputs


@pytest.mark.parametrize("text", ["224", "224x224", "axbxc", "0x5x1", "-1x5x1", "5x5x1x1", ""])
def test_a_malformed_input_size_is_rejected(text: str) -> None:
    with pytest.raises(TrainingError, match="is not an input size: write HEIGHTxWIDTHxCHANNELS"):
        parse_shape(text)


def test_an_input_size_is_height_width_channels() -> None:
    assert parse_shape("160x120X3") == (160, 120, 3)


def test_an_unknown_network_or_invalid_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no network named 'lenet'; did you mean 'lenet5'\?"):
        describe("lenet")
    with pytest.raises(TrainingError, match=r"has no manifest.json: name one version, such as .*/1\."):
        describe(str(tmp_path))
    with pytest.raises(TrainingError, match="neither a version folder"):
        describe("models/nothing/1")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(TrainingError, match="not a valid manifest"):
        describe(str(tmp_path))


def test_a_version_folder_is_its_graph_and_its_variants(tmp_path: Path) -> None:
    description = describe(str(write_version(tmp_path, "digits", 3, (8, 6, 1), classes=4)))
    assert description.name == "digits/3"
    assert [(row.layer, row.output, row.weights) for row in description.rows] == [
        ("INPUT", (8, 6, 1), 0),
        ("FC", (4,), 8 * 6 * 4),
    ]
    assert not description.is_trainable
    (variant,) = description.notes
    assert variant.startswith("model.onnx: float32, ")
    assert as_json(description)["totals"]["training_bytes"] is None


def test_an_exported_networks_input_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is an exported graph, whose input and classes are fixed"):
        describe(str(tmp_path / "model.onnx"), (32, 32, 3))
