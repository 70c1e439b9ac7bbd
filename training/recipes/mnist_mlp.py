"""Multilayer perceptrons from a lecture: 784-500-500-10 on MNIST, mini-batches of 100, 20 epochs of SGD at 0.1.

Lee, "Hello world of deep learning". One pair compares squared error and cross entropy, with sigmoid units. The other
pair compares a dropout rate of 0.8 after both hidden layers, as printed in the lecture (0.5 is usual today), with no
dropout, and is evaluated on digits with noise.
"""

from dataclasses import replace

from training.recipes.base import Recipe

XENT = Recipe(
    name="mnist-mlp-xent",
    about="784-500-500-10 with the cross entropy, to be compared with mnist-mlp-mse",
    dataset="mnist",
    architecture="mlp",
    momentum=0.0,
    learning_rate=0.1,
    epochs=20,
    batch_size=100,
    holdout=1500,
)
MSE = replace(
    XENT,
    name="mnist-mlp-mse",
    about="784-500-500-10 with the squared error, to be compared with mnist-mlp-xent",
    loss="squared_error",
)
PLAIN = replace(
    XENT,
    name="mnist-mlp-plain",
    about="784-500-500-10 with ReLU, to be compared with mnist-mlp-dropout",
    architecture_options={"activation": "relu"},
)
DROPOUT = replace(
    PLAIN,
    name="mnist-mlp-dropout",
    about="mnist-mlp-plain with a dropout rate of 0.8, to be evaluated with --noise 0.5",
    architecture_options={"activation": "relu", "dropout": 0.8},
)

RECIPES = (MSE, XENT, PLAIN, DROPOUT)
