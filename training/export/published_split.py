"""Determines how the run of a published version split its images, and splits the images of a new run in the same way.

Only manifests and lists of files are read here. Images are not read.
"""

from collections.abc import Sequence
from dataclasses import replace

from service.model_store.manifest import Provenance, SplitSpec
from training.data import datasets
from training.data.datasets.base import Dataset
from training.data.datasets.folder_listing import FolderListing
from training.data.datasets.folder_test_split import count_missing, split_digest, split_test_files
from training.data.load_dataset import DataOptions
from training.data.splits import SplitIndices, split_indices
from training.errors import TrainingError
from training.fit.callbacks import Log
from training.recipes import RECIPES
from training.recipes.base import Recipe

UNRECORDED_TEST_FILES = (
    "the published version does not record which files are its test images: the files that the same seed draws are "
    "used, which is correct unless files were renamed or removed"
)
_START_OVER = "or publish without a comparison: use another --name, or convoy-train run and export"


def split_seed_of(provenance: Provenance) -> int | None:
    """Returns the seed that split the images of a version's run; None if it is unknown."""
    recorded = None if provenance.division is None else provenance.division.seed
    return provenance.seed if recorded is None else recorded


def is_same_data(dataset: Dataset, provenance: Provenance) -> bool:
    """Returns whether the data set has the images of the version's run, with the same test images."""
    if dataset.name != provenance.dataset:
        return False
    expected_digest = provenance.division and provenance.division.digest
    return (
        dataset.name != datasets.FOLDER if expected_digest is None else expected_digest == split_digest(dataset.origin)
    )


def published_split(dataset: Dataset, provenance: Provenance) -> SplitIndices | None:
    """Returns the split of the version's run; None if that run had other images or its split is unknown.

    A version without `division` comes from an early release. Its run is assumed to have used the unchanged recipe, and
    to have held out only validation images.
    """
    split_spec = provenance.division or _early_split_spec(dataset, provenance)
    if split_spec is None or not is_same_data(dataset, provenance):
        return None
    return _split(dataset, provenance, split_spec)


def split_of_changed_folder(dataset: Dataset, provenance: Provenance) -> SplitIndices | None:
    """Returns the split of the version's run for a folder with added or removed files; None if it is unknown.

    Only sets with a fraction of the images are stable; a set with a fixed number of images is returned empty. Added
    images count as part of the set that they would have been in, because the version was trained on none of them. A
    renamed training image counts as a new one.
    """
    split_spec = provenance.division
    if split_spec is None or not split_spec.by_path or dataset.name != provenance.dataset:
        return None
    fractions = {name: size for name in ("validation", "holdout") if 0 < (size := getattr(split_spec, name)) < 1}
    return _split(dataset, provenance, split_spec.model_copy(update={"validation": 0, "holdout": 0, **fractions}))


def _early_split_spec(dataset: Dataset, provenance: Provenance) -> SplitSpec | None:
    recipe = RECIPES.get(provenance.recipe or "")
    if recipe is None or recipe.dataset != dataset.name:
        return None
    return SplitSpec(validation=recipe.validation, limit=recipe.limit)


def _split(dataset: Dataset, provenance: Provenance, split_spec: SplitSpec) -> SplitIndices | None:
    if split_spec.by_path and not dataset.split_paths:  # a run of an early release
        return None
    settings = {name: getattr(split_spec, name) for name in ("validation", "holdout", "limit")}
    settings["seed"] = split_seed_of(provenance) or 0
    recipe = Recipe(name=dataset.name, dataset=dataset.name, architecture=provenance.architecture or "", **settings)
    return split_indices(dataset if split_spec.by_path else replace(dataset, split_paths=()), recipe)


def with_published_split(
    recipe: Recipe,
    published: str,
    labels: Sequence[str],
    provenance: Provenance,
    data_options: DataOptions,
    log: Log,
) -> Recipe:
    """Returns the recipe with the split seed and test share of a published version. Returns it unchanged for another
    data set, or if the seed is unknown.

    Raises TrainingError if the folder has other classes than the version, whose classes are `labels`, or if its test
    set cannot be the version's test set, because test images are missing or changed, or `val/` was added or removed.
    Added images do not move other images between the sets.
    """
    seed = split_seed_of(provenance)
    if provenance.dataset != recipe.dataset or seed is None:
        return recipe
    recipe = replace(recipe, split_seed=None if seed == recipe.seed else seed)
    if recipe.dataset != datasets.FOLDER:
        return recipe
    split_spec = provenance.division
    if split_spec is not None and split_spec.test_share is not None:
        recipe = replace(recipe, test_share=split_spec.test_share)
    _, listing = datasets.list_dataset(recipe.dataset, data_options.data_dir, data_options.folder)
    _check_labels(listing, published, labels)
    if split_spec is not None:
        _check_layout(listing, published, split_spec)
    if listing.test is None:
        _check_test_files(listing, recipe, published, provenance, log)
    return recipe


def _check_labels(listing: FolderListing, published: str, labels: Sequence[str]) -> None:
    if listing.labels == tuple(labels):
        return
    changes = [
        f"{kind}: {', '.join(sorted(names))}"
        for kind, names in (
            ("new", set(listing.labels) - set(labels)),
            ("missing", set(labels) - set(listing.labels)),
        )
        if names
    ]
    raise TrainingError(
        f"{listing.folder} and {published} have different classes ({'; '.join(changes) or 'in another order'}), so "
        "their accuracies cannot be compared: train with convoy-train run, and publish with convoy-train export."
    )


def _check_layout(listing: FolderListing, published: str, split_spec: SplitSpec) -> None:
    had_test_folder, has_test_folder = split_spec.test_share is None, listing.test is not None
    if had_test_folder != has_test_folder:
        change = "had a val/ folder and has none now" if had_test_folder else "had no val/ folder and has one now"
        raise TrainingError(
            f"{listing.folder} {change}: {published} may have been trained on its test images. Restore the folder's "
            f"layout, {_START_OVER}."
        )


def _check_test_files(listing: FolderListing, recipe: Recipe, published: str, provenance: Provenance, log: Log) -> None:
    split_spec = provenance.division
    if split_spec is None or split_spec.test_fingerprints is None:
        if split_spec is None or split_spec.digest != _digest(listing, recipe):
            log(UNRECORDED_TEST_FILES)
        return
    missing, total = count_missing(split_spec.test_fingerprints, listing.folder, listing.train.paths)
    if missing:
        raise TrainingError(
            f"{missing:,} of the {total:,} test images of {published} are missing from {listing.folder} or have "
            f"changed: a new network cannot be compared with it. Restore them (run.json of {provenance.source} names "
            f"the test images), {_START_OVER}."
        )


def _digest(listing: FolderListing, recipe: Recipe) -> str | None:
    _, test = split_test_files(listing.train, recipe.test_share, recipe.effective_split_seed)
    return split_digest({"digest": listing.digest(), "test_files": test.paths})
