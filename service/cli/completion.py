"""What the shell completes: the names of the models on disk. Never an error, and never a bucket's network."""

from pathlib import Path

import click

from service.model_store.object_store import is_url
from service.model_store.repository import Repository
from service.settings import Settings


def model_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Models of --models or CONVOY_MODELS whose names begin so."""
    try:
        where = context.params.get("models") or Settings().models
        names = [] if is_url(where) else Repository(Path(where)).models()
    except (OSError, ValueError):  # a variable that is no setting's value is told by the command itself
        return []
    return [name for name in names if name.startswith(incomplete)]
