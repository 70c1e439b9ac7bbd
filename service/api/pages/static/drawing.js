// From the drawing's ink to the image that is sent: laid out like MNIST, in the model's size and colours.

import { el } from "./dom.js";
import { layOutLikeMnist } from "./mnist.js";

/** A PNG of the model's size for what was drawn, as MNIST's digits are laid out; null for an empty drawing. */
export async function toMnistPng({ grey, width, height }, { input, preprocessing }) {
  const field = layOutLikeMnist(grey, width, height, input.height);
  if (!field) return null;
  const canvas = el("canvas", { width: input.height, height: input.height });
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(input.height, input.height);
  const onWhite = preprocessing.background > 127; // such a model was trained on dark ink
  field.forEach((value, at) => {
    image.data.fill(onWhite ? 255 - value : value, at * 4, at * 4 + 3);
    image.data[at * 4 + 3] = 255;
  });
  pen.putImageData(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
