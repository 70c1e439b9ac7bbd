"""The ConvNetJS network has the shapes and parameters of its source."""

from training.architectures import ARCHITECTURES


def test_convnetjs(golden, trainable, shapes) -> None:
    model = ARCHITECTURES["convnetjs"]()
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "logits")
    assert shapes(model, *names) == golden("convnetjs_cifar10")["shapes"]
    assert trainable(model) == golden("convnetjs_cifar10")["parameters"]
