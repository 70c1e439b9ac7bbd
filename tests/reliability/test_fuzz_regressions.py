"""Valid inputs of the fuzzer and earlier findings give a valid result or a ConvoyError."""

import pytest

from tests.reliability.fuzz.run_fuzzer import regressions
from tests.reliability.fuzz.targets import TARGETS, corpus


@pytest.mark.parametrize("target", TARGETS)
def test_valid_inputs_and_earlier_findings_are_handled(target: str) -> None:
    inputs = [*corpus(target), *(file.read_bytes() for file in regressions(target))]
    for data in inputs:
        TARGETS[target](data)
        TARGETS[target](data[: len(data) // 2])
    assert len(inputs) >= 3
