"""Computes filters and feature maps with the extra graph that the export of a version wrote with the model. Independent
of encoded images and requests.
"""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import BadParameter, BrokenVersion
from service.inference.session import FeatureSession
from service.model_store.manifest import FEATURES_GRAPH, FILTERS_PREFIX, MAPS_PREFIX
from service.model_store.repository import VersionFolder

NO_FEATURES_HINT = (
    "Publish the model again with `convoy-train export`, which writes the feature maps, or use another method."
)


@dataclass(frozen=True)
class LayerImages:
    """Images of one layer, float32 (n, height, width, channels): feature maps, which have one channel, or filters."""

    layer: str
    images: NDArray[np.float32]


@dataclass(frozen=True)
class LayerOutputs:
    """Feature maps of one image for each layer, in the order of the network, and the filters of the first
    convolution."""

    filters: LayerImages | None
    layers: list[LayerImages]


class FeatureGraph:
    """The extra graph of one version, loaded on first use. `layer_outputs` may be called from several threads."""

    def __init__(self, folder: VersionFolder) -> None:
        self._folder = folder
        self._session: FeatureSession | None = None
        self._loading = threading.Lock()

    @property
    def is_available(self) -> bool:
        return FEATURES_GRAPH in self._folder.manifest.extra_graphs

    def layer_outputs(self, image: NDArray[np.uint8]) -> LayerOutputs:
        """Returns filters and feature maps for one image, uint8 (height, width, channels).

        Raises BadParameter if the version has no such graph, BrokenVersion if the graph cannot be loaded, and
        ModelFailed if it fails.
        """
        outputs = self._load_once().run(image[np.newaxis])
        filters = [
            LayerImages(name.removeprefix(FILTERS_PREFIX), output)
            for name, output in outputs.items()
            if name.startswith(FILTERS_PREFIX)
        ]
        maps = {
            name.removeprefix(MAPS_PREFIX): output[0]
            for name, output in outputs.items()
            if name.startswith(MAPS_PREFIX)
        }
        layers = [LayerImages(name, np.moveaxis(output, -1, 0)[..., np.newaxis]) for name, output in maps.items()]
        return LayerOutputs(filters[0] if filters else None, layers)

    def _load_once(self) -> FeatureSession:
        with self._loading:
            if self._session is None:
                self._session = self._load()
            return self._session

    def _load(self) -> FeatureSession:
        try:
            path = self._folder.extra_graph_path(FEATURES_GRAPH)
            if path is not None:
                return FeatureSession(path, self._folder.manifest.input)
        except BrokenVersion as error:
            message = "The graph of the feature maps cannot be loaded."
            raise BrokenVersion(message, error.hint, library_text=error.full_message) from error
        raise BadParameter("This version was published without feature maps.", NO_FEATURES_HINT)
