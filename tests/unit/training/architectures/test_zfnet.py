"""ZFNet: the layers in which it differs from AlexNet, with the filters of table 3 and of figure 3."""

from training.architectures import build_without_weights


def test_zfnet_is_alexnet_with_a_finer_start(shapes) -> None:
    model = build_without_weights("zfnet")
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    sides = [(110, 96), (55, 96), (26, 256), (13, 256), (13, 512), (13, 1024), (13, 512), (6, 512)]
    assert shapes(model, *names) == [[side, side, channels] for side, channels in sides]
    first, second = model.get_layer("conv1"), model.get_layer("conv2")
    assert (first.kernel_size, first.strides) == ((7, 7), (2, 2))
    assert (second.kernel_size, second.strides) == ((5, 5), (2, 2))


def test_zfnet_of_figure_3(shapes) -> None:
    model = build_without_weights("zfnet", filters=(384, 384, 256))
    assert shapes(model, "conv5", "pool5", "fc6") == [[13, 13, 256], [6, 6, 256], [4096]]
