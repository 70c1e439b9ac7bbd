"""Writes the section of a model card about the precisions and engines with which a version is served."""

import re
from pathlib import Path

from service.model_store.manifest import Manifest, Variant
from training.export.quantization.paired_acceptance import describe

CARD_FILE = "card.md"
PRECISIONS_HEADING = "## Precisions"
FOLLOWING_SECTIONS = ("## Training", "## Limits", "## How to reproduce")


def update_card(
    folder: Path,
    name: str,
    version: int,
    manifest: Manifest,
    command: str,
    calibration_images: int,
    note: str | None = None,
) -> None:
    """Writes the new version's number and graphs into the card in `folder`, or creates a short card.

    `note` is a remark about the images.
    """
    path = set_version(folder, name, version)
    text = path.read_text(encoding="utf-8")
    text = re.sub(rf"(?ms)^{PRECISIONS_HEADING}\n.*?(?=^## |\Z)", "", text)
    insert_at = next((text.index(f"\n{mark}") + 1 for mark in FOLLOWING_SECTIONS if f"\n{mark}" in text), len(text))
    section = precisions_section(manifest, command, calibration_images, note)
    path.write_text(f"{text[:insert_at]}{section}\n\n{text[insert_at:]}".rstrip() + "\n", encoding="utf-8")


def set_version(folder: Path, name: str, version: int) -> Path:
    """Writes the new version's number into the heading of the card in `folder`, or a new card. Returns its path."""
    path = folder / CARD_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    heading = f"# {name}, version {version}\n"
    text = re.sub(r"\A# .*\n", heading, text) if text.startswith("# ") else heading + text
    path.write_text(text, encoding="utf-8")
    return path


def precisions_section(manifest: Manifest, command: str, calibration_images: int, note: str | None = None) -> str:
    """Returns the section about the graphs: a table, and when the service uses each graph."""
    rows = [
        "| graph | bytes | held out | test | same class as float32 | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    rows += [_precision_row(variant) for variant in manifest.variants]
    notes = [_precision_note(variant) for variant in manifest.variants if variant.precision != "float32"]
    return (
        f"{PRECISIONS_HEADING}\n\nThe accuracy on held-out training images decides whether a graph is accepted. The "
        "accuracy on the test set has no influence. Differences in probabilities were measured on test images."
        + (f" {note}" if note else "")
        + "\n\n"
        + "\n".join(rows)
        + f"\n\nint8 was calibrated on {calibration_images:,} other training images. "
        + " ".join(notes)
        + f" Made by `{command}`."
        + (f"\n\n{acceptances}" if (acceptances := acceptance_list(manifest)) else "")
    )


def acceptance_list(manifest: Manifest) -> str:
    """Returns a list of the paired comparisons on held-out images; empty if there is none."""
    lines = [f"- `{variant.file}` {describe(one)}" for variant in manifest.variants for one in variant.acceptances]
    return (
        "\n".join(["Image by image, compared with float32 on onnxruntime's own engine:", "", *lines]) if lines else ""
    )


def _precision_row(variant: Variant) -> str:
    parity = variant.parity
    is_first = parity is None or variant.precision == "float32"
    comparison = (
        "| | |" if parity is None or is_first else f"| {parity.same_class:.1%} | {parity.max_abs_difference:.1g} |"
    )
    accuracies = " | ".join(
        "" if accuracy is None else f"{accuracy:.2%}" for accuracy in (variant.held_out_accuracy, variant.test_accuracy)
    )
    return f"| `{variant.file}` {variant.precision} | {variant.bytes:,} | {accuracies} {comparison}"


def _precision_note(variant: Variant) -> str:
    on_request = f"The service uses {variant.precision} only with CONVOY_PRECISION={variant.precision}"
    hardware = {"int8": "processors with VNNI", "float16": "NVIDIA's GPUs"}[variant.precision]
    selection = (
        f"The service chooses {variant.precision} automatically on {hardware}" if variant.automatic else on_request
    )
    speed = variant.speed
    if speed is None:
        return f"{selection}. Its speed was not measured, because no GPU was available."
    sizes = ", ".join(
        f"{speed.float32_us_per_image[size] / us:.2f} times its speed at batch {size} ({us:g} us per image)"
        for size, us in speed.us_per_image.items()
    )
    machine = f"{speed.threads} thread{'s' * (speed.threads > 1)} of {speed.processor}"
    return f"{selection}. Measured alternately with float32 on {machine}, it ran at {sizes}."
