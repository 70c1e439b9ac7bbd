"""The manifest: valid contents, and the errors for invalid contents."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.errors import BrokenVersion
from service.model_store.manifest import MANIFEST_FILE, Manifest, read_manifest, write_manifest

SHA256 = "0" * 64
FULL: dict[str, Any] = {
    "format": 2,
    "requires": "0.1.0",
    "input": {"height": 224, "width": 200, "channels": 3},
    "preprocessing": {
        "resize": "shorter",
        "shorter": 256,
        "resize_rule": "torchvision",
        "interpolation": "bicubic",
        "antialias": True,
        "background": 0,
        "jpeg_scale": True,
    },
    "classes": 10,
    "activation": "sigmoid",
    "flip_averaged": True,
    "labels": {"file": "labels.txt", "sha256": SHA256},
    "parameters": 61706,
    "variants": [
        {
            "file": "model.onnx",
            "sha256": SHA256,
            "precision": "float32",
            "bytes": 250_000,
            "test_accuracy": 0.9921,
            "parity": {
                "images": 1000,
                "batch_sizes": [1, 7, 64],
                "max_abs_difference": 2e-7,
                "same_class": 1.0,
                "graph_error": 1e-7,
                "float32_error": 2e-7,
            },
            "automatic": True,
            "acceptances": [
                {
                    "engine": "openvino",
                    "hint": "bf16",
                    "images": 1500,
                    "lost": 2,
                    "gained": 1,
                    "upper_loss": 0.003,
                    "same_class": 0.998,
                    "max_abs_difference": 0.02,
                    "automatic": True,
                }
            ],
        },
        {
            "file": "model.int8.onnx",
            "sha256": SHA256,
            "precision": "int8",
            "bytes": 70_000,
            "test_accuracy": 0.991,
            "held_out_accuracy": 0.99,
            "speed": {
                "processor": "one with VNNI",
                "threads": 2,
                "us_per_image": {"1": 20.0, "32": 9.5},
                "float32_us_per_image": {"1": 21.0, "32": 19.0},
            },
            "automatic": False,
            "acceptances": [],
        },
    ],
    "extra_graphs": {"features": {"file": "features.onnx", "sha256": SHA256}},
    "samples": {"file": "samples.npz", "sha256": SHA256},
    "metrics": {"test_loss": 0.024},
    "provenance": {
        "source": "trained here",
        "created_utc": "2026-01-01T00:00:00Z",
        "architecture": "lenet5",
        "recipe": "mnist-lenet5",
        "dataset": "mnist",
        "dataset_note": "60,000 digits",
        "seed": 0,
        "division": {
            "validation": 0.1,
            "holdout": 0.2,
            "limit": 300,
            "test_share": 0.2,
            "digest": SHA256,
            "seed": 3,
            "by_path": True,
            "test_fingerprints": "3q2+7w==",
        },
        "libraries": {"keras": "3.15"},
    },
}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = copy.deepcopy(FULL)
    change(content)
    return content


def written(folder: Path, content: object) -> Path:
    (folder / MANIFEST_FILE).write_text(json.dumps(content))
    return folder


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(FULL)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert json.loads((tmp_path / MANIFEST_FILE).read_text()) == FULL


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(FULL), encoding="utf-8-sig")
    assert read_manifest(tmp_path) == Manifest.model_validate(FULL)


def test_omitted_fields_have_defaults(tmp_path: Path) -> None:
    needed = {key: FULL[key] for key in ("input", "classes", "labels")}
    variant = {"file": "model.onnx", "sha256": SHA256, "precision": "float32", "bytes": 1}
    content = needed | {"variants": [variant], "provenance": {"source": "elsewhere", "created_utc": "2026-01-01"}}
    manifest = read_manifest(written(tmp_path, content))
    assert (manifest.preprocessing.resize, manifest.preprocessing.background) == ("squash", 255)
    assert (manifest.parameters, manifest.metrics, manifest.extra_graphs) == (None, {}, {})
    assert manifest.activation == "softmax"
    assert (manifest.preprocessing.resize_rule, manifest.preprocessing.antialias) == ("convoy", True)


def test_format_1_is_read_and_written_as_the_current_format(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, changed(lambda m: (m.update(format=1), m.pop("requires")))))
    assert manifest.format == 1
    write_manifest(manifest, tmp_path)
    assert json.loads((tmp_path / MANIFEST_FILE).read_text()) == FULL


@pytest.mark.parametrize(
    ("fields", "needed"), [({"requires": "7.1"}, "Convoy 7.1"), ({}, "Convoy 0.1.0"), ({"sound": {}}, "Convoy 0.1.0")]
)
def test_a_later_format_is_reported_with_the_version_that_reads_it(
    tmp_path: Path, fields: dict[str, Any], needed: str
) -> None:
    content = changed(lambda m: m.update(format=3, **fields))
    with pytest.raises(BrokenVersion, match=f"has format 3 and needs {needed}; this Convoy reads formats up to 2"):
        read_manifest(written(tmp_path, content))


def test_a_later_format_without_its_version_is_reported_too(tmp_path: Path) -> None:
    content = changed(lambda m: (m.update(format=3), m.pop("requires")))
    with pytest.raises(BrokenVersion, match="has format 3 and needs a newer Convoy; this Convoy"):
        read_manifest(written(tmp_path, content))


def test_variants_are_found_by_precision() -> None:
    manifest = Manifest.model_validate(FULL)
    int8 = manifest.variant("int8")
    assert int8 is not None
    assert int8.file == "model.int8.onnx"
    assert manifest.variant("float16") is None


BAD_FIELDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "format": lambda m: m.update(format=0),
    "requires": lambda m: m.update(requires=1),
    "input": lambda m: m.pop("input"),
    "input.height": lambda m: m["input"].update(height=0),
    "input.width": lambda m: m["input"].update(width=4097),
    "input.channels": lambda m: m["input"].update(channels=4),
    "input.depth": lambda m: m["input"].update(depth=3),
    "preprocessing.resize": lambda m: m["preprocessing"].update(resize="stretch"),
    "preprocessing.resize_rule": lambda m: m["preprocessing"].update(resize_rule="caffe"),
    "preprocessing.shorter": lambda m: m["preprocessing"].update(shorter="wide"),
    "preprocessing": lambda m: m["preprocessing"].pop("shorter"),
    "preprocessing.interpolation": lambda m: m["preprocessing"].update(interpolation="area"),
    "preprocessing.background": lambda m: m["preprocessing"].update(background=256),
    "classes": lambda m: m.update(classes=0),
    "activation": lambda m: m.update(activation="relu"),
    "labels": lambda m: m.update(labels="labels.txt"),
    "labels.file": lambda m: m["labels"].update(file=""),
    "labels.sha256": lambda m: m["labels"].update(sha256="A" * 64),
    "parameters": lambda m: m.update(parameters=-1),
    "variants": lambda m: m.update(variants=[]),
    "variants.0.file": lambda m: m["variants"][0].pop("file"),
    "variants.1.sha256": lambda m: m["variants"][1].update(sha256="0" * 63),
    "variants.0.precision": lambda m: m["variants"][0].update(precision="float64"),
    "variants.0.bytes": lambda m: m["variants"][0].update(bytes=0),
    "variants.0.test_accuracy": lambda m: m["variants"][0].update(test_accuracy=99.2),
    "variants.0.parity.images": lambda m: m["variants"][0]["parity"].update(images=0),
    "variants.0.parity.max_abs_difference": lambda m: m["variants"][0]["parity"].update(max_abs_difference=-1),
    "extra_graphs.features.sha256": lambda m: m["extra_graphs"]["features"].pop("sha256"),
    "metrics.test_loss": lambda m: m["metrics"].update(test_loss=float("nan")),
    "provenance": lambda m: m.pop("provenance"),
    "provenance.source": lambda m: m["provenance"].pop("source"),
    "provenance.author": lambda m: m["provenance"].update(author="me"),
    "provenance.division.limit": lambda m: m["provenance"]["division"].update(limit=0),
    "provenance.division.seed": lambda m: m["provenance"]["division"].update(seed=-1),
    "provenance.division.test_share": lambda m: m["provenance"]["division"].update(test_share=1),
    "notes": lambda m: m.update(notes=""),
}


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_a_bad_field_is_reported_with_its_file(tmp_path: Path, field: str) -> None:
    with pytest.raises(BrokenVersion) as raised:
        read_manifest(written(tmp_path, changed(BAD_FIELDS[field])))
    assert raised.value.message.startswith(f"{tmp_path / MANIFEST_FILE} is not a valid manifest: {field}: ")
    assert raised.value.message.endswith(".")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["preprocessing"].update(shorter=223), "preprocessing.shorter is 223, too small"),
        (lambda m: m["preprocessing"].update(resize="squash"), "`shorter`"),
        (lambda m: m["preprocessing"].update(antialias=False), "without antialias it is nearest or bilinear"),
        (lambda m: m["variants"][1].update(precision="float32"), "two variants have the same precision"),
        (lambda m: m.update(activation="binary"), "activation is 'binary', which has 2 classes, not 10"),
    ],
)
def test_fields_that_contradict_each_other_are_rejected(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(BrokenVersion, match=message):
        read_manifest(written(tmp_path, changed(change)))


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "/etc/passwd",
        "a/b.onnx",
        "a\\b.onnx",
        "..",
        ".",
        ".hidden",
        "",
        " ",
        "a b",
        "a\n",
        "a\0",
        "é",
        "-f",
        "x" * 129,
    ],
)
def test_a_file_name_is_a_plain_name(tmp_path: Path, name: str) -> None:
    for change in (
        lambda m: m["labels"].update(file=name),
        lambda m: m["variants"][0].update(file=name),
        lambda m: m["extra_graphs"]["features"].update(file=name),
    ):
        with pytest.raises(BrokenVersion, match=r"\.file: "):
            read_manifest(written(tmp_path, changed(change)))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}", b"[" * 100_000])
def test_an_invalid_manifest_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BrokenVersion, match=r"manifest\.json is not a valid manifest"):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_distinguished_from_an_invalid_one(tmp_path: Path) -> None:
    with pytest.raises(BrokenVersion, match=r"manifest\.json cannot be read: No such file or directory\."):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST_FILE).mkdir()
    with pytest.raises(BrokenVersion, match="is not a regular file"):
        read_manifest(tmp_path)


def test_a_manifest_never_changes() -> None:
    manifest = Manifest.model_validate(FULL)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.classes = 11  # type: ignore[misc]
