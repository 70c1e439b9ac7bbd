"""What the validation images say of a run so far: its best epoch, and for how long nothing better has come.

All of it follows from the run's history, so that a resumed run decides as an uninterrupted one would have.
"""

import math
from collections.abc import Iterator, Sequence

from training.recipes.base import Recipe
from training.runs.run_folder import Row


def best_epoch(recipe: Recipe, history: Sequence[Row]) -> int | None:
    """Index of the epoch with the best validation figure, the first of equals; None where nothing was validated."""
    improvements = [index for index, better in enumerate(_improvements(recipe, history)) if better]
    return improvements[-1] if improvements else None


def is_over(recipe: Recipe, history: Sequence[Row]) -> bool:
    """Whether the recipe's `patience` is used up; a frozen base uses up none."""
    best = best_epoch(recipe, history)
    waiting_since = max(-1 if best is None else best, recipe.frozen_epochs - 1)
    return bool(recipe.patience) and len(history) - 1 - waiting_since >= recipe.patience


def plateaus(recipe: Recipe, history: Sequence[Row]) -> int:
    """How many times `plateau_epochs` epochs in a row have brought no improvement; the count starts anew each time.

    Epochs with a frozen base do not count.
    """
    found = waiting = 0
    for index, better in enumerate(_improvements(recipe, history)):
        waiting = 0 if better or index < recipe.frozen_epochs else waiting + 1
        if waiting == recipe.plateau_epochs:
            found, waiting = found + 1, 0
    return found


def _improvements(recipe: Recipe, history: Sequence[Row]) -> Iterator[bool]:
    """For every epoch, whether it was better than all before it. A loss that is no number never is."""
    column, sign = f"val_{recipe.watch}", -1 if recipe.watch == "loss" else 1
    best = -math.inf
    for row in history:
        figure = sign * row.get(column, math.nan)
        yield figure > best
        best = figure if figure > best else best
