"""Costs of Keras networks: the rows of MobileNet add up to the figures in its paper."""

from training.analysis.describe import as_table, describe_network
from training.architectures.keras_applications import build


def test_costs_of_mobilenet_match_its_paper() -> None:
    """Howard et al. 2017, table 4: 569 million multiply-adds and 4.2 million parameters."""
    network = build("keras:MobileNet", (224, 224, 3), classes=1000)
    description = describe_network("keras:MobileNet", network)
    assert round(description.multiply_adds / 1e6) == 569
    assert round(description.parameters / 1e6, 1) == 4.2
    assert description.parameters + description.running_statistics == network.count_params()
    assert "DWCONV3/2" in as_table(description)
