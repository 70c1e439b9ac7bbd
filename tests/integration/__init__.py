"""Tests against real processes and real training runs. Tests without a process or a training run are in
`tests/unit`."""
