"""LeNet-5 has the shapes and parameters of its paper."""

from training.architectures import ARCHITECTURES


def test_lenet5(golden, trainable, shapes) -> None:
    model = ARCHITECTURES["lenet5"]()
    assert shapes(model, "c1", "s2", "c3", "s4", "c5", "f6", "logits") == golden("lenet5")["shapes"]
    assert trainable(model) == golden("lenet5")["parameters"]
