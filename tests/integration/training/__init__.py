"""Training, export and import of whole models.
What needs no training run is tested in `tests/unit/training`."""
