"""Training, export and import of whole models. Tests without a training run are in `tests/unit/training`."""
