"""LitServe: base64 in JSON, dynamic batching without a delay."""

import base64

import litserve
import numpy as np
from classifier import INSTANCES, MAX_BATCH, PORT, Net, best


class Api(litserve.LitAPI):
    def setup(self, device):
        self.net = Net()

    def decode_request(self, request):
        return self.net.decode(base64.b64decode(request["image"]))

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.net(batch)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, row):
        return {"predictions": best(row)}


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=INSTANCES)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
