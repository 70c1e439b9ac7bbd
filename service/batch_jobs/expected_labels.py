"""The expected label of an image, from the name of its folder."""

from collections.abc import Sequence

from service.batch_jobs.find_images import TAR_SEPARATOR


class FolderLabels:
    """Maps the folder of an image to the label of the same name, ignoring case, `_` and `-`."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = {_normalize(label): label for label in labels}
        self._label_by_folder: dict[str, str | None] = {}

    def label_for(self, name: str) -> str | None:
        path = name.rpartition(TAR_SEPARATOR)[2].rpartition("/")[0]
        folder = path.rpartition("/")[2]
        if folder not in self._label_by_folder:  # Images are sorted by folder, so most lookups repeat the previous one.
            self._label_by_folder[folder] = self._labels.get(_normalize(folder))
        return self._label_by_folder[folder]


def _normalize(text: str) -> str:
    return text.casefold().replace("_", " ").replace("-", " ")
