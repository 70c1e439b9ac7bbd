"""What is wrong with models that could not be read or loaded, and whether to try again would be of use."""

from service.model_store.repository import VersionFingerprint

THE_FOLDER = 0  # in place of a version's number


class LoadFailures:
    """Reasons by model and version."""

    def __init__(self) -> None:
        self._reasons: dict[str, dict[int, str]] = {}
        self._tried: dict[tuple[str, int], VersionFingerprint] = {}

    def of(self, model: str) -> str:
        """Why versions of the model could not be loaded; empty where none failed."""
        return " ".join(self._reasons.get(model, {}).values())

    def all(self) -> dict[str, str]:
        """The same of all models where some failed."""
        return {model: why for model in list(self._reasons) if (why := self.of(model))}

    def of_version(self, model: str, version: int) -> str:
        """Why that one could not be loaded; empty where it has not failed."""
        return self._reasons.get(model, {}).get(version, "")

    def note(self, model: str, version: int, fingerprint: VersionFingerprint, why: str) -> None:
        """The version failed, with its files as `fingerprint` has them."""
        self._tried[model, version] = fingerprint
        self._reasons.setdefault(model, {})[version] = why

    def note_folder(self, model: str, why: str) -> bool:
        """The model's folder cannot be read; whether that is new."""
        is_new = self._reasons.get(model) != {THE_FOLDER: why}
        self._reasons[model] = {THE_FOLDER: why}
        return is_new

    def would_fail_again(self, model: str, version: int, fingerprint: VersionFingerprint) -> bool:
        """Whether it failed with these very files."""
        return self._tried.get((model, version)) == fingerprint

    def clear(self, model: str, version: int) -> None:
        """The version is loaded."""
        self._reasons.get(model, {}).pop(version, None)

    def retry(self) -> None:
        """What failed may be tried again as it is."""
        self._tried.clear()

    def keep_versions(self, model: str, versions: list[int]) -> None:
        """The model's folder was read: of what is not in it nothing is wrong any more."""
        reasons = self._reasons.get(model, {})
        self._reasons[model] = {version: why for version, why in reasons.items() if version in versions}

    def keep_models(self, models: set[str]) -> None:
        """What was wrong with models that are not wanted any more, or gone, is forgotten."""
        self._reasons = {model: reasons for model, reasons in self._reasons.items() if model in models}
        self._tried = {which: fingerprint for which, fingerprint in self._tried.items() if which[0] in models}
