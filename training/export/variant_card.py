"""The part of a model card about graphs of less precision, put into the card that the version came with."""

import re
from pathlib import Path

from service.model_store.manifest import Manifest, Variant
from training.export.model_card import FILE_NAME

SECTION = "## Precisions"
BEFORE = ("## Training", "## Limits", "## How to reproduce")


def renew_card(
    folder: Path,
    name: str,
    version: int,
    manifest: Manifest,
    command: str,
    calibrating: int,
    note: str | None = None,
) -> None:
    """Writes the new version's number and its graphs into the card in `folder`; without a card, a short one.

    `note` is what must be known of the images.
    """
    path = folder / FILE_NAME
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    heading = f"# {name}, version {version}\n"
    text = re.sub(r"\A# .*\n", heading, text) if text.startswith("# ") else heading + text
    text = re.sub(rf"(?ms)^{SECTION}\n.*?(?=^## |\Z)", "", text)
    data_options = next((text.index(f"\n{mark}") + 1 for mark in BEFORE if f"\n{mark}" in text), len(text))
    section = precisions(manifest, command, calibrating, note)
    path.write_text(f"{text[:data_options]}{section}\n\n{text[data_options:]}".rstrip() + "\n", encoding="utf-8")


def precisions(manifest: Manifest, command: str, calibrating: int, note: str | None = None) -> str:
    """The section: a table of the graphs, and what each is for."""
    rows = [
        "| graph | bytes | held out | test | same class as float32 | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    rows += [_row(variant) for variant in manifest.variants]
    told = [_told(variant) for variant in manifest.variants if variant.precision != "float32"]
    return (
        f"{SECTION}\n\nAccuracies on training images held out, by which a graph is accepted, and on the test set, "
        "which decides nothing; difference of a probability over test images."
        + (f" {note}" if note else "")
        + "\n\n"
        + "\n".join(rows)
        + f"\n\nint8 was calibrated on {calibrating:,} other training images. "
        + " ".join(told)
        + f" Made by `{command}`."
    )


def _row(variant: Variant) -> str:
    parity = variant.parity
    first = variant.precision == "float32" or parity is None
    compared = "| | |" if first else f"| {parity.same_class:.1%} | {parity.max_abs_difference:.1g} |"
    accuracies = " | ".join(
        "" if accuracy is None else f"{accuracy:.2%}" for accuracy in (variant.held_out_accuracy, variant.test_accuracy)
    )
    return f"| `{variant.file}` {variant.precision} | {variant.bytes:,} | {accuracies} {compared}"


def _told(variant: Variant) -> str:
    asked = f"The service uses {variant.precision} only with CONVOY_PRECISION={variant.precision}"
    where = {"int8": "processors with VNNI", "float16": "NVIDIA's GPUs"}[variant.precision]
    chosen = f"The service chooses {variant.precision} by itself on {where}" if variant.automatic else asked
    speed = variant.speed
    if speed is None:
        return f"{chosen}; its speed was not measured, for want of a GPU."
    sizes = ", ".join(
        f"{speed.float32_us_per_image[size] / us:.2f} times its speed at batch {size} ({us:g} us an image)"
        for size, us in speed.us_per_image.items()
    )
    where = f"{speed.threads} thread{'s' * (speed.threads > 1)} of {speed.processor}"
    return f"{chosen}; in turns with float32, on {where}, it ran at {sizes}."
