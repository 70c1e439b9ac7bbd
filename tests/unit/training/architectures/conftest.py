"""Golden figures of the papers, and counters for the tests of all networks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[3] / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Reads tests/golden/NAME.json."""
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def trainable() -> Callable[[keras.Model], int]:
    """Counts trainable parameters, from shapes alone."""
    return lambda model: sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.fixture(scope="session")
def shapes() -> Callable[..., list[list[int]]]:
    """Returns the output shapes of the named layers, without the batch dimension."""
    return lambda model, *names: [list(model.get_layer(name).output.shape[1:]) for name in names]
