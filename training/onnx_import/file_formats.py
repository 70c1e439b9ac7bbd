"""Recognizes file formats other than ONNX by their first bytes, and explains how to convert them."""

from pathlib import Path

from training.errors import TrainingError

HEADER_BYTES = 64
TORCH_ADVICE = (
    'a PyTorch file: load the network, and call torch.onnx.export(model.eval(), (images,), "net.onnx", '
    'dynamic_shapes=({0: "batch"},))'
)
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file: run git lfs pull"),
    (0, b"PK\x03\x04", f"a zip file: import a .keras file with convoy-train export; it may also be {TORCH_ADVICE}"),
    (0, b"\x80\x02", TORCH_ADVICE),
    (0, b"\x80\x03", TORCH_ADVICE),
    (0, b"\x80\x04", TORCH_ADVICE),
    (0, b"\x89HDF\r\n\x1a\n", "a Keras HDF5 file: use convoy-train export"),
    (4, b"TFL3", "a TFLite file: python -m tf2onnx.convert --tflite FILE --output net.onnx --opset 18"),
    (0, b"<!DOCTYPE", "a web page: download the file itself"),
    (0, b"<html", "a web page: download the file itself"),
)
"""Offset, bytes, and a description with advice."""


def refuse_other_format(path: Path) -> None:
    """Raises TrainingError for a file in a known other format. Raises OSError for a file that cannot be read."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    for offset, signature, advice in SIGNATURES:
        if header[offset : offset + len(signature)] == signature:
            raise TrainingError(f"{path} is {advice}.")
