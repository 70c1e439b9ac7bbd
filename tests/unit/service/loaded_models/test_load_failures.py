"""Failures are remembered until the version is loaded or removed, or its files change."""

from service.atomic_files import FileFingerprint
from service.loaded_models.load_failures import LoadFailures

FIRST = (("model.onnx", FileFingerprint(1, 1, 1)),)
SECOND = (("model.onnx", FileFingerprint(2, 2, 2)),)


def test_the_reasons_of_a_model_are_those_of_its_versions() -> None:
    failures = LoadFailures()
    failures.record("a", 1, FIRST, "No labels.")
    failures.record("a", 2, FIRST, "No graph.")
    assert failures.reason_for("a") == "No labels. No graph."
    assert failures.reason_for_version("a", 2) == "No graph."
    assert failures.reasons() == {"a": "No labels. No graph."}
    assert failures.reason_for("b") == failures.reason_for_version("a", 3) == ""


def test_a_version_is_tried_again_with_other_files_or_on_demand() -> None:
    failures = LoadFailures()
    failures.record("a", 1, FIRST, "No labels.")
    assert failures.has_failed_with("a", 1, FIRST)
    assert not failures.has_failed_with("a", 1, SECOND)
    assert not failures.has_failed_with("a", 2, FIRST)
    failures.allow_retries()
    assert not failures.has_failed_with("a", 1, FIRST)
    assert failures.reason_for("a") == "No labels."


def test_loaded_and_removed_versions_have_no_failure() -> None:
    failures = LoadFailures()
    for version in (1, 2, 3):
        failures.record("a", version, FIRST, f"{version}.")
    failures.clear("a", 1)
    failures.keep_versions("a", [1, 3])
    assert failures.reason_for("a") == "3."
    failures.keep_models(set())
    assert failures.reasons() == {}
    assert not failures.has_failed_with("a", 3, FIRST)


def test_an_unreadable_folder_is_new_once_and_replaces_the_versions() -> None:
    failures = LoadFailures()
    failures.record("a", 1, FIRST, "No labels.")
    assert failures.record_unreadable_folder("a", "Denied.")
    assert not failures.record_unreadable_folder("a", "Denied.")
    assert failures.reason_for("a") == "Denied."
    failures.keep_versions("a", [1])
    assert failures.reason_for("a") == ""


def test_a_failure_is_confirmed_once() -> None:
    failures = LoadFailures()
    failures.record("a", 1, FIRST, "No labels.")
    failures.record("a", 1, SECOND, "No graph.")
    assert failures.confirm("a", 1)
    assert not failures.confirm("a", 1)
    assert not failures.confirm("a", 2)


def test_a_version_that_returns_with_the_same_files_is_tried_and_reported_again() -> None:
    """A rollback hides a version, and undoing it restores the version with unchanged files."""
    failures = LoadFailures()
    failures.record("a", 2, FIRST, "No labels.")
    failures.record("b", 1, FIRST, "No graph.")
    failures.keep_versions("a", [1])
    assert not failures.has_failed_with("a", 2, FIRST)
    assert not failures.confirm("a", 2)
    assert failures.has_failed_with("b", 1, FIRST)
    assert failures.confirm("b", 1)
