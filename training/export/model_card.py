"""Writes the model card of a version: data, accuracy, training, limits, and the commands that reproduce the version.

Every figure comes from the manifest, the run or a measurement.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from service.model_store.manifest import Manifest
from training.data.datasets import FOLDER
from training.export.acceptance import Decision
from training.export.quantization.precisions_section import CARD_FILE, acceptance_list
from training.export.sources import Source
from training.fit.scores import Scores
from training.recipes import find_recipe, is_recipe
from training.recipes.base import Recipe
from training.recipes.settings import format_value
from training.runs.run_folder import Run

MAX_CONFUSIONS = 5


@dataclass(frozen=True)
class CardData:
    """The input of a card. `scores` are the scores of the exported graph on the whole test set."""

    name: str
    version: int
    manifest: Manifest
    labels: tuple[str, ...]
    source: Source
    scores: Scores | None
    command: str | None = None
    """The command that created the version. For a run, it starts from the run's folder."""
    decision: Decision | None = None


def write_card(folder: Path, card: CardData) -> None:
    """Writes `card.md` into the version's folder. It shows the plots that exist there."""
    sections = [
        _heading(card),
        _data_section(card),
        _accuracy_section(card, folder),
        acceptance_list(card.manifest),
        _training_section(card, folder),
        _limits_section(card),
    ]
    text = "\n\n".join(section for section in [*sections, _reproduction_section(card)] if section)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def training_command(recipe: Recipe) -> str:
    """Returns the command that trains exactly this recipe: the recipe's name, with `--set` for every field that
    differs."""
    published = find_recipe(recipe.name)
    arguments = ["convoy-train", "run", recipe.name, "--seed", str(recipe.seed)]
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name == "seed" or value == getattr(published, field.name):
            continue
        if field.name == "dataset" and value == FOLDER:
            continue
        if field.name == "architecture_options":
            for option, setting in value.items():
                arguments += ["--set", f"architecture.{option}={format_value(setting)}"]
        else:
            arguments += ["--set", f"{field.name}={format_value(value)}"]
    return shlex.join([*arguments, *(["--data", "FOLDER"] if recipe.dataset == FOLDER else [])])


def _heading(card: CardData) -> str:
    manifest, size = card.manifest, card.manifest.input
    color = "gray" if size.channels == 1 else "RGB"
    megabytes = sum(variant.bytes for variant in manifest.variants) / 1e6
    flipped = (
        " The probabilities are the mean over the image and its mirror image, which takes twice the time."
        if manifest.flip_averaged
        else ""
    )
    parameters = "" if manifest.parameters is None else f", {manifest.parameters:,} parameters"
    return (
        f"# {card.name}, version {card.version}\n\n"
        f"Architecture `{manifest.provenance.architecture}`{parameters}, {megabytes:.2f} MB. It takes {color} "
        f"images of {size.width}x{size.height} pixels and returns a probability for each of {manifest.classes} classes"
        f"{_label_list(card.labels)}.{flipped} From {manifest.provenance.source}, exported "
        f"{manifest.provenance.created_utc}."
    )


def _data_section(card: CardData) -> str:
    dataset = card.source.dataset
    if dataset is None:
        return "## Data\n\nThe export did not know the training data of this network."
    lines = [f"{dataset.title} (`{dataset.name}`)."]
    if dataset.note:
        lines.append(f"**Note on these files:** {dataset.note}. Every accuracy here was measured on these files.")
    if card.source.run is not None:
        counts = card.source.run.info()["dataset"]
        lines.append(
            f"Trained on {counts['training_images']:,} images. Of the training set, {counts['validation_images']:,} "
            f"others were used for validation and {counts['holdout_images']:,} were held out, drawn with seed "
            f"{card.source.run.recipe().effective_split_seed}."
        )
    return "## Data\n\n" + " ".join(lines)


def _accuracy_section(card: CardData, folder: Path) -> str:
    parity = card.manifest.variants[0].parity
    exactness = (
        f"On {parity.images:,} images, at batch sizes {', '.join(map(str, parity.batch_sizes))}, the served graph "
        f"and the original network agree on every class. The largest difference of a probability is "
        f"{parity.max_abs_difference:.1e}."
        if parity
        else ""
    )
    if parity is not None and parity.graph_error is not None:
        exactness += (
            " Compared with a more exact computation of the network, the error of the graph is "
            f"{parity.graph_error:.1e}, and the error of the network in float32 is {parity.float32_error:.1e}. Classes "
            "whose probabilities differ by no more than the graph's allowed error count as equal."
        )
    metrics = card.manifest.metrics
    if card.scores is None and "check_accuracy" in metrics:
        return (
            f"## Accuracy\n\n**{metrics['check_accuracy']:.2%}** of {metrics['check_images']:,.0f} images, on some of "
            f"which the network may have been trained. {exactness}"
        )
    if card.scores is None:
        return f"## Accuracy\n\nNot measured, because the export had no labeled images. {exactness}"
    scores, dataset = card.scores, card.source.dataset
    is_test_set = dataset is None or dataset.is_test_set
    unknown = "" if is_test_set else " The network may have been trained on these images."
    wrong = scores.images - round(scores.accuracy * scores.images)
    comparison = "" if card.decision is None else f" {card.decision.describe()}"
    plot = "\n\n![confusion matrix](confusion.png)" if (folder / "confusion.png").exists() else ""
    kind = "test" if is_test_set else "given"
    return (
        f"## Accuracy\n\n**{scores.accuracy:.2%}** of the {scores.images:,} {kind} images ({wrong:,} wrong), cross "
        f"entropy {scores.loss:.4f}.{unknown} Measured on the exported graph through the service's decoding and "
        f"preprocessing. {exactness}{comparison}\n\n{_per_class_table(card.labels, scores)}{plot}"
    )


def _per_class_table(labels: tuple[str, ...], scores: Scores) -> str:
    rows = [f"| {label} | {accuracy:.2%} |" for label, accuracy in _class_accuracies(labels, scores)]
    table = "\n".join(["| class | right |", "|---|---|", *rows])
    confusions = ", ".join(
        f"{true_label} predicted as {predicted} ({count})"
        for count, true_label, predicted in _worst_confusions(labels, scores)
    )
    return f"{table}\n\nMost frequent mistakes: {confusions}." if confusions else table


def _class_accuracies(labels: tuple[str, ...], scores: Scores) -> Iterator[tuple[str, float]]:
    for label, accuracy in zip(labels, scores.per_class_accuracy, strict=True):
        if accuracy is not None:
            yield label, accuracy


def _worst_confusions(labels: tuple[str, ...], scores: Scores) -> list[tuple[int, str, str]]:
    mistakes = [
        (count, labels[true_label], labels[predicted])
        for true_label, row in enumerate(scores.confusion)
        for predicted, count in enumerate(row)
        if true_label != predicted and count
    ]
    return sorted(mistakes, key=lambda mistake: -mistake[0])[:MAX_CONFUSIONS]


def _training_section(card: CardData, folder: Path) -> str:
    run, recipe = card.source.run, card.source.recipe
    if run is None or recipe is None:
        return ""
    defaults = {field.name: field.default for field in fields(Recipe)}
    rows = [
        f"| {name} | {format_value(getattr(recipe, name))} |"
        for name, default in defaults.items()
        if name not in ("name", "about", "limit") and (getattr(recipe, name) != default or name in _ALWAYS_LISTED)
    ]
    metrics, info = run.metrics(), run.info()
    averages = f", as moving averages (decay {recipe.ema_decay:g} per step)" if recipe.ema_decay else ""
    ending = f"The weights are those of epoch {metrics['weights_of_epoch']} of {recipe.epochs}{averages}"
    if "validation" in metrics:
        ending += f", with {metrics['validation']['accuracy']:.2%} on the validation images"
    others = f" It starts from the weights in `{info['initial_weights']}`." if "initial_weights" in info else ""
    limit = f" At most {recipe.limit:,} images of each split were used." if recipe.limit else ""
    plot = "\n\n![loss and accuracy over the epochs](curves.png)" if (folder / "curves.png").exists() else ""
    table = "\n".join(["| recipe | |", "|---|---|", *rows])
    return f"## Training\n\n{ending}.{others}{limit} {_duration(run)}\n\n{table}{plot}"


def _duration(run: Run) -> str:
    """Describes duration, speed and processors of a run. Runs of early releases did not record the processors."""
    speed = median(row["images_per_s"] for row in run.history())
    machines = [f"{one['cores']} cores of {one['processor']}" for one in run.info().get("machines", [])]
    names = dict.fromkeys(machines)
    place = f" on {' and '.join(names)}" if names else ""
    seconds = run.metrics()["training_seconds"]
    return f"Training took {seconds:,.0f} s{place}: {speed:,.0f} images/s (median of the epochs)."


_ALWAYS_LISTED = ("epochs", "batch_size", "loss", "optimizer", "learning_rate", "seed")


def _limits_section(card: CardData) -> str:
    size, preprocessing = card.manifest.input, card.manifest.preprocessing
    resizing = (
        "squeezed"
        if preprocessing.resize == "squash"
        else f"scaled to a shorter side of {preprocessing.shorter} and cropped"
    )
    lines = [
        _unknown_image_limit(card.manifest),
        f"Images of another size are {resizing} to {size.width}x{size.height} ({preprocessing.interpolation}). "
        "Details that this removes are lost.",
    ]
    if card.source.dataset is not None and card.source.dataset.limitations:
        lines.append(card.source.dataset.limitations)
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _unknown_image_limit(manifest: Manifest) -> str:
    if manifest.activation == "sigmoid":
        return (
            f"The network has only these {manifest.classes} labels. Each has an independent probability, and all of "
            "them may be below 50%. An image of anything else can get labels with a high probability as well."
        )
    return (
        f"The network has only these {manifest.classes} classes. An image of anything else is assigned to one of them "
        "as well, often with a high probability."
    )


def _reproduction_section(card: CardData) -> str:
    provenance, run, recipe = card.manifest.provenance, card.source.run, card.source.recipe
    libraries = ", ".join(f"{name} {version}" for name, version in provenance.libraries.items())
    if run is not None and recipe is not None and is_recipe(recipe.name):
        libraries = ", ".join(f"{name} {version}" for name, version in run.info()["libraries"].items())
        folder = run.folder.parent.name
        name_flag = f" --name {shlex.quote(folder)}" if folder != recipe.name else ""
        export = card.command or f"convoy-train export runs/{folder}/UTC-TIME --name {card.name}"
        commands = f"{training_command(recipe)}{name_flag}\n{export}"
    else:
        commands = (
            card.command or f"convoy-train export {card.source.cli_argument or card.source.name} --name {card.name}"
        )
    return f"## How to reproduce\n\n```\n{commands}\n```\n\nMade with {libraries}."


def _label_list(labels: tuple[str, ...]) -> str:
    return f" ({', '.join(labels)})" if len(labels) <= 20 else f" ({', '.join(labels[:3])}, ...)"
