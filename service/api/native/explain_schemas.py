"""JSON schemas of explanations. Images are PNG in base64."""

from typing import Literal, get_args

from pydantic import BaseModel, Field

from service.api.schemas import Prediction

Method = Literal["input", "occlusion", "features"]
METHODS: tuple[str, ...] = get_args(Method)


class SeenInput(BaseModel):
    """The image after decoding and preprocessing, before normalization."""

    height: int
    width: int
    channels: int
    png: str = Field(description="Base64.")


class Point(BaseModel):
    """A pixel of the input; 0, 0 is the top left pixel."""

    x: int
    y: int


class ExplainReply(BaseModel):
    """Fields common to all methods: the explained image and version, and the image as the network sees it."""

    model: str = Field(examples=["mnist-lenet5"])
    version: str = Field(examples=["1"])
    method: Method
    input: SeenInput


class OcclusionReply(ExplainReply):
    explained: Prediction = Field(description="The class that the heatmap explains, and its probability.")
    heat: str = Field(
        description="PNG in base64, of the input's size: orange pixels support the class, blue pixels count against it."
    )
    peak: Point = Field(description="The pixel that supports the class most.")
    peak_log_odds: float = Field(description="Decrease of the log-odds of the class when that pixel is covered.")
    passes: int = Field(description="Number of images that the network ran on.")


class Grid(BaseModel):
    """Images of one layer in rows of eight, each rescaled so that its darkest value is black and its brightest is
    white."""

    layer: str = Field(examples=["c1"])
    count: int = Field(description="Number of images of the layer.")
    shown: int = Field(description="Number of images in the grid, the first ones of the layer.")
    height: int = Field(description="Height of each image in pixels.")
    width: int
    png: str = Field(description="Base64.")


class FeaturesReply(ExplainReply):
    filters: Grid | None = Field(description="The kernels of the first convolution.")
    layers: list[Grid] = Field(description="Feature maps, in the order of the network.")
