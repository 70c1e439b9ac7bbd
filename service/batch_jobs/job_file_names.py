"""Names of the files that a batch job writes: the output, and the files next to it."""

OUTPUT_SUFFIXES = (".jsonl", ".csv", ".parquet")

# Suffixes of the files next to the output, which are appended to its whole name.
PARTIAL_SUFFIX = ".part"
ERRORS_SUFFIX = ".errors.jsonl"
SUMMARY_SUFFIX = ".summary.json"
CONFUSION_SUFFIX = ".confusion.png"
SIDECAR_SUFFIXES = (PARTIAL_SUFFIX, ERRORS_SUFFIX, SUMMARY_SUFFIX, CONFUSION_SUFFIX)
JOB_FILE_SUFFIXES = tuple(output + sidecar for output in OUTPUT_SUFFIXES for sidecar in ("", *SIDECAR_SUFFIXES))


def is_job_file(path: str) -> bool:
    """Whether a job writes files with this name: an output, or a file next to an output."""
    return path.lower().endswith(JOB_FILE_SUFFIXES)
