// Converts the ink of the drawing to the image that is sent: placed like an MNIST digit, in the model's size and colors.

import { el } from "./dom.js";
import { layOutLikeMnist } from "./mnist.js";

/** Returns a PNG of the drawing in the model's size, placed like an MNIST digit; null for an empty drawing. */
export async function toMnistPng({ gray, width, height }, { input, preprocessing }) {
  const field = layOutLikeMnist(gray, width, height, input.height);
  if (!field) return null;
  const canvas = el("canvas", { width: input.height, height: input.height });
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(input.height, input.height);
  const onWhite = preprocessing.background > 127; // the model was trained on dark ink
  field.forEach((value, at) => {
    image.data.fill(onWhite ? 255 - value : value, at * 4, at * 4 + 3);
    image.data[at * 4 + 3] = 255;
  });
  pen.putImageData(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
