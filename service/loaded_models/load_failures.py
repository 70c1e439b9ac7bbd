"""Records why models could not be read or versions could not be loaded, and whether another attempt is useful."""

from collections.abc import Callable

from service.model_store.repository import VersionFingerprint

MODEL_FOLDER = 0  # means the folder of the model itself, in place of a version number


class LoadFailures:
    """Reasons by model and version number."""

    def __init__(self) -> None:
        self._reasons: dict[str, dict[int, str]] = {}
        self._failed_fingerprints: dict[tuple[str, int], VersionFingerprint] = {}
        self._unconfirmed: set[tuple[str, int]] = set()

    def reason_for(self, model: str) -> str:
        """Reasons why versions of the model could not be loaded; empty if none failed."""
        return " ".join(self._reasons.get(model, {}).values())

    def reasons(self) -> dict[str, str]:
        """Returns `reason_for` of each model with failures, by model name."""
        return {model: reason for model in list(self._reasons) if (reason := self.reason_for(model))}

    def reason_for_version(self, model: str, version: int) -> str:
        """Reason why the version could not be loaded; empty if it has not failed."""
        return self._reasons.get(model, {}).get(version, "")

    def record(self, model: str, version: int, fingerprint: VersionFingerprint, reason: str) -> None:
        """Records that the version failed with the files of `fingerprint`. It does not count until `confirm`."""
        self._failed_fingerprints[model, version] = fingerprint
        self._unconfirmed.add((model, version))
        self._reasons.setdefault(model, {})[version] = reason

    def confirm(self, model: str, version: int) -> bool:
        """Confirms a recorded failure, and returns whether it was unconfirmed.

        A caller confirms when the files have stopped changing: a version that is still being copied fails in every
        scan, each time with other files.
        """
        is_new = (model, version) in self._unconfirmed
        self._unconfirmed.discard((model, version))
        return is_new

    def confirmed_count(self, model: str) -> int:
        """The number of versions that cannot be loaded now; 1 if the model's folder cannot be read."""
        return sum((model, version) not in self._unconfirmed for version in self._reasons.get(model, {}))

    def record_unreadable_folder(self, model: str, reason: str) -> bool:
        """Records that the model's folder cannot be read. Returns whether this reason is new."""
        is_new = self._reasons.get(model) != {MODEL_FOLDER: reason}
        self._reasons[model] = {MODEL_FOLDER: reason}
        return is_new

    def has_failed_with(self, model: str, version: int, fingerprint: VersionFingerprint) -> bool:
        """Whether the version failed with exactly these files."""
        return self._failed_fingerprints.get((model, version)) == fingerprint

    def clear(self, model: str, version: int) -> None:
        """Removes the failure of a version that is loaded now."""
        self._reasons.get(model, {}).pop(version, None)
        self._failed_fingerprints.pop((model, version), None)

    def allow_retries(self) -> None:
        """Allows every failed version to be tried again with unchanged files."""
        self._failed_fingerprints.clear()

    def keep_versions(self, model: str, versions: list[int]) -> None:
        """Removes the failures of the model's folder, and of all its versions except `versions`."""
        reasons = self._reasons.get(model, {})
        self._reasons[model] = {version: reason for version, reason in reasons.items() if version in versions}
        self._forget_files_unless(lambda name, version: name != model or version in versions)

    def keep_models(self, models: set[str]) -> None:
        """Removes the failures of all models except `models`."""
        self._reasons = {model: reasons for model, reasons in self._reasons.items() if model in models}
        self._forget_files_unless(lambda name, version: name in models)

    def _forget_files_unless(self, is_kept: Callable[[str, int], bool]) -> None:
        """Removes the fingerprints of versions that no longer exist, so that a version that reappears with the same
        files, as after an undone rollback, is tried and reported again."""
        self._failed_fingerprints = {key: files for key, files in self._failed_fingerprints.items() if is_kept(*key)}
        self._unconfirmed = {key for key in self._unconfirmed if is_kept(*key)}
