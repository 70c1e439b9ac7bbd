"""MLServer: V2 tensors, adaptive batching."""

from classifier import Net
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    async def load(self) -> bool:
        self.net = Net()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.net(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", rows)])
