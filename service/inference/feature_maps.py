"""What lies between a version's input and its answer: filters and feature maps, from the graph that its export wrote
beside the model. Knows no images and no requests."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import BadParameter
from service.inference.session import FeatureSession
from service.model_store.manifest import FEATURES, FILTERS, MAPS
from service.model_store.repository import VersionFolder

NO_FEATURES_HINT = "Publish the model again with `convoy-train export`, which writes them, or take another method."


@dataclass(frozen=True)
class LayerImages:
    """Images of one layer, float32 (n, height, width, channels): its feature maps (one channel) or its filters."""

    layer: str
    images: NDArray[np.float32]


@dataclass(frozen=True)
class LayerOutputs:
    """What one image makes of a network: `layers` in the order of the network, `filters` of the first convolution."""

    filters: LayerImages | None
    layers: list[LayerImages]


class Features:
    """The extra graph of one version, loaded when first asked for. `look` may be called from several threads."""

    def __init__(self, folder: VersionFolder) -> None:
        self._folder = folder
        self._session: FeatureSession | None = None
        self._loading = threading.Lock()

    @property
    def there(self) -> bool:
        return FEATURES in self._folder.manifest.extra_graphs

    def look(self, image: NDArray[np.uint8]) -> LayerOutputs:
        """Filters and feature maps for one image, uint8 (height, width, channels).

        Raises BadParameter where the version has no such graph, BrokenVersion, ModelFailed.
        """
        outputs = self._loaded().run(image[np.newaxis])
        filters = [
            LayerImages(name.removeprefix(FILTERS), out) for name, out in outputs.items() if name.startswith(FILTERS)
        ]
        maps = {name.removeprefix(MAPS): out[0] for name, out in outputs.items() if name.startswith(MAPS)}
        layers = [LayerImages(name, np.moveaxis(out, -1, 0)[..., np.newaxis]) for name, out in maps.items()]
        return LayerOutputs(filters[0] if filters else None, layers)

    def _loaded(self) -> FeatureSession:
        with self._loading:
            if self._session is None:
                path = self._folder.extra_graph(FEATURES)
                if path is None:
                    raise BadParameter("This version was published without feature maps.", NO_FEATURES_HINT)
                self._session = FeatureSession(path, self._folder.manifest.input)
            return self._session
