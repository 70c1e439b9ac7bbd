"""Speed, measured: Convoy alone and beside its peers. `python -m tests.bench --help`; results in README.md."""
