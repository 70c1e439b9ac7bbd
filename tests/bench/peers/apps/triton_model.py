"""Triton's Python backend: runs the tensors of all requests of a batch at once."""

import os
import sys

# The interpreter of the backend has neither the peer's environment nor this folder on its path.
sys.path[:0] = [os.environ["PEER_SITE"], os.environ["PEER_APPS"]]

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402
from classifier import Net  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.net = Net()

    def execute(self, requests):
        parts = [triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        ends = np.cumsum([len(part) for part in parts])[:-1]
        answers = np.split(self.net(np.concatenate(parts)), ends)
        return [triton.InferenceResponse([triton.Tensor("probabilities", rows)]) for rows in answers]
