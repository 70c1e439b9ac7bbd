"""What the files of jobs are called, so that no job takes one of them for an image."""

OUTPUTS = (".jsonl", ".csv", ".parquet")

PARTIAL, ERRORS, SUMMARY, CONFUSION = ".part", ".errors.jsonl", ".summary.json", ".confusion.png"
"""What follows the output's whole name in the names of the files that lie beside it."""

BESIDE = (PARTIAL, ERRORS, SUMMARY, CONFUSION)
MADE = tuple(output + beside for output in OUTPUTS for beside in ("", *BESIDE))


def is_made(path: str) -> bool:
    """Whether a file of that name is one that jobs make: an output, or what lies beside it."""
    return path.lower().endswith(MADE)
