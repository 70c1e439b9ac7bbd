"""Writes the model card of a version: data, accuracy, training, limits and the commands that reproduce it.

Every figure comes from the manifest, the run or a measurement. The section about reduced-precision graphs is replaced
in a card that exists.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from service.model_store.manifest import Manifest, Variant
from training.data.datasets import FOLDER
from training.export.sources import Source
from training.fit.scores import Scores
from training.recipes import find_recipe, is_recipe
from training.recipes.base import Recipe, spelled

FILE_NAME = "card.md"
WORST_CONFUSIONS = 5
SECTION = "## Precisions"
BEFORE = ("## Training", "## Limits", "## How to reproduce")


@dataclass(frozen=True)
class Facts:
    """All that a card is made of. `scores` are of the exported graph, over the whole test set."""

    name: str
    version: int
    manifest: Manifest
    labels: tuple[str, ...]
    source: Source
    scores: Scores | None
    command: str | None = None
    """The one that made it, where it is neither a run's nor a Keras file's."""


def write_card(folder: Path, facts: Facts) -> None:
    """Writes `card.md` beside the files it describes; it shows those plots that are there."""
    sections = [_heading(facts), _data(facts), _accuracy(facts, folder), _training(facts, folder), _limits(facts)]
    text = "\n\n".join(section for section in [*sections, _reproduction(facts)] if section)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def command_for(recipe: Recipe) -> str:
    """The command that trains exactly this recipe: the one of its name, with `--set` for all that differs."""
    published = find_recipe(recipe.name)
    words = ["convoy-train", "run", recipe.name, "--seed", str(recipe.seed)]
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name == "seed" or value == getattr(published, field.name):
            continue
        if field.name == "dataset" and value == FOLDER:
            continue
        if field.name == "architecture_options":
            for option, setting in value.items():
                words += ["--set", f"architecture.{option}={spelled(setting)}"]
        else:
            words += ["--set", f"{field.name}={spelled(value)}"]
    return shlex.join([*words, *(["--data", "FOLDER"] if recipe.dataset == FOLDER else [])])


def _heading(facts: Facts) -> str:
    manifest, size = facts.manifest, facts.manifest.input
    colour = "grey" if size.channels == 1 else "RGB"
    megabytes = sum(variant.bytes for variant in manifest.variants) / 1e6
    parameters = "" if manifest.parameters is None else f", {manifest.parameters:,} parameters"
    return (
        f"# {facts.name}, version {facts.version}\n\n"
        f"Architecture `{manifest.provenance.architecture}`{parameters}, {megabytes:.2f} MB. It takes {colour} "
        f"images of {size.width}x{size.height} pixels and gives a probability to each of {manifest.classes} classes"
        f"{_listed(facts.labels)}. From {manifest.provenance.source}, exported {manifest.provenance.created_utc}."
    )


def _data(facts: Facts) -> str:
    dataset = facts.source.dataset
    if dataset is None:
        return "## Data\n\nWhat this network was trained on was not told to the export."
    lines = [f"{dataset.title} (`{dataset.name}`)."]
    if dataset.note:
        lines.append(f"**About these files:** {dataset.note}. Every accuracy here is on these files.")
    if facts.source.run is not None:
        counts = facts.source.run.info()["dataset"]
        lines.append(
            f"Trained on {counts['training_images']:,} images; {counts['validation_images']:,} others of the "
            f"training set, drawn by the seed, were for validation."
        )
    return "## Data\n\n" + " ".join(lines)


def _accuracy(facts: Facts, folder: Path) -> str:
    parity = facts.manifest.variants[0].parity
    exactness = (
        f"Over {parity.images:,} images at batch sizes {', '.join(map(str, parity.batch_sizes))} the served graph "
        f"and the network it was made of agree on every class; the largest difference of a probability is "
        f"{parity.max_abs_difference:.1e}."
        if parity
        else ""
    )
    if facts.scores is None:
        return f"## Accuracy\n\nNot measured: no labelled images were given to the export. {exactness}"
    scores = facts.scores
    wrong = scores.images - round(scores.accuracy * scores.images)
    plot = "\n\n![confusion matrix](confusion.png)" if (folder / "confusion.png").exists() else ""
    return (
        f"## Accuracy\n\n**{scores.accuracy:.2%}** of the {scores.images:,} test images ({wrong:,} wrong), cross "
        f"entropy {scores.loss:.4f}: measured on the exported graph through the service's own decoding and "
        f"preprocessing. {exactness}\n\n{_per_class(facts.labels, scores)}{plot}"
    )


def _per_class(labels: tuple[str, ...], scores: Scores) -> str:
    rows = [f"| {label} | {accuracy:.2%} |" for label, accuracy in _measured(labels, scores)]
    table = "\n".join(["| class | right |", "|---|---|", *rows])
    confusions = ", ".join(f"{right} called {answer} ({count})" for count, right, answer in _confusions(labels, scores))
    return f"{table}\n\nMost frequent mistakes: {confusions}." if confusions else table


def _measured(labels: tuple[str, ...], scores: Scores) -> Iterator[tuple[str, float]]:
    for label, accuracy in zip(labels, scores.per_class_accuracy, strict=True):
        if accuracy is not None:
            yield label, accuracy


def _confusions(labels: tuple[str, ...], scores: Scores) -> list[tuple[int, str, str]]:
    mistakes = [
        (count, labels[right], labels[answer])
        for right, row in enumerate(scores.confusion)
        for answer, count in enumerate(row)
        if right != answer and count
    ]
    return sorted(mistakes, key=lambda mistake: -mistake[0])[:WORST_CONFUSIONS]


def _training(facts: Facts, folder: Path) -> str:
    run, recipe = facts.source.run, facts.source.recipe
    if run is None or recipe is None:
        return ""
    defaults = {field.name: field.default for field in fields(Recipe)}
    told = [
        f"| {name} | {spelled(getattr(recipe, name))} |"
        for name, default in defaults.items()
        if name not in ("name", "about", "limit") and (getattr(recipe, name) != default or name in _ALWAYS_TOLD)
    ]
    metrics, info = run.metrics(), run.info()
    averages = f" averages ({recipe.weight_average:g} of themselves a step)" if recipe.weight_average else ""
    ending = f"The weights are those{averages} of epoch {metrics['weights_of_epoch']} of {recipe.epochs}"
    if "validation" in metrics:
        ending += f", with {metrics['validation']['accuracy']:.2%} on the validation images"
    others = f" It starts from the weights in `{info['started_from']}`." if "started_from" in info else ""
    limit = f" At most {recipe.limit:,} images of each split were used." if recipe.limit else ""
    plot = "\n\n![loss and accuracy over the epochs](curves.png)" if (folder / "curves.png").exists() else ""
    table = "\n".join(["| recipe | |", "|---|---|", *told])
    return (
        f"## Training\n\n{ending}.{others}{limit} Training took {metrics['training_seconds']:.0f} s.\n\n{table}{plot}"
    )


_ALWAYS_TOLD = ("epochs", "batch_size", "loss", "optimizer", "learning_rate", "seed")


def _limits(facts: Facts) -> str:
    size, how = facts.manifest.input, facts.manifest.preprocessing
    fitting = "squeezed" if how.resize == "squash" else f"scaled to a shorter side of {how.shorter} and cropped"
    lines = [
        f"It knows these {facts.manifest.classes} classes and nothing else: an image of anything else is given to one "
        "of them as well, often with a high probability.",
        f"Images of another size are {fitting} to {size.width}x{size.height} ({how.interpolation}), and lose what "
        "does not survive that.",
    ]
    if facts.source.dataset is not None and facts.source.dataset.limits:
        lines.append(facts.source.dataset.limits)
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _reproduction(facts: Facts) -> str:
    provenance, run, recipe = facts.manifest.provenance, facts.source.run, facts.source.recipe
    libraries = ", ".join(f"{name} {version}" for name, version in provenance.libraries.items())
    if facts.command is not None:
        commands = facts.command
    elif run is not None and recipe is not None and is_recipe(recipe.name):
        libraries = ", ".join(f"{name} {version}" for name, version in run.info()["libraries"].items())
        folder = run.folder.parent.name
        named = f" --name {shlex.quote(folder)}" if folder != recipe.name else ""
        commands = f"{command_for(recipe)}{named}\nconvoy-train export runs/{folder}/UTC-TIME --name {facts.name}"
    else:
        commands = f"convoy-train export {facts.source.argument or facts.source.name} --name {facts.name}"
    return f"## How to reproduce\n\n```\n{commands}\n```\n\nMade with {libraries}."


def _listed(labels: tuple[str, ...]) -> str:
    return f" ({', '.join(labels)})" if len(labels) <= 20 else f" ({', '.join(labels[:3])}, ...)"


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
