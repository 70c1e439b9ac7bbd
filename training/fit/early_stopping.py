"""Computes best epoch, plateaus and patience of a run from its validation metric.

All results depend only on the run's history, so that a resumed run stops at the same epoch as an uninterrupted run.
"""

import math
from collections.abc import Iterator, Sequence

from training.recipes.base import Recipe
from training.runs.run_folder import HistoryRow


def best_epoch(recipe: Recipe, history: Sequence[HistoryRow]) -> int | None:
    """Returns the index of the first epoch with the best validation metric, or None if there is no validation."""
    improvements = [index for index, is_better in enumerate(_improvements(recipe, history)) if is_better]
    return improvements[-1] if improvements else None


def is_out_of_patience(recipe: Recipe, history: Sequence[HistoryRow]) -> bool:
    """Returns whether the recipe's `patience` is exhausted. Epochs with a frozen base do not count."""
    best = best_epoch(recipe, history)
    last_improvement = max(-1 if best is None else best, recipe.frozen_epochs - 1)
    return bool(recipe.patience) and len(history) - 1 - last_improvement >= recipe.patience


def count_plateaus(recipe: Recipe, history: Sequence[HistoryRow]) -> int:
    """Returns how often `plateau_epochs` consecutive epochs brought no improvement; counting restarts each time.

    Epochs with a frozen base do not count.
    """
    plateaus = stagnant_epochs = 0
    for index, is_better in enumerate(_improvements(recipe, history)):
        stagnant_epochs = 0 if is_better or index < recipe.frozen_epochs else stagnant_epochs + 1
        if stagnant_epochs == recipe.plateau_epochs:
            plateaus, stagnant_epochs = plateaus + 1, 0
    return plateaus


def _improvements(recipe: Recipe, history: Sequence[HistoryRow]) -> Iterator[bool]:
    """Yields for every epoch whether it was better than all earlier ones. NaN is never better."""
    column, sign = f"val_{recipe.monitor}", -1 if recipe.monitor == "loss" else 1
    best = -math.inf
    for row in history:
        score = sign * row.get(column, math.nan)
        yield score > best
        best = score if score > best else best
