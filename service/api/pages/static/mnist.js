// Places a drawing like the digits of MNIST. Pure functions: gray values in, gray values out.
//
// "The original black and white images from NIST were size normalized to fit in a 20x20 pixel box while preserving
// their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique used by the
// normalization algorithm. The images were centered in a 28x28 image by computing the center of mass of the pixels, and
// translating the image so as to position this point at the center of the 28x28 field."
// LeCun, Cortes, Burges: The MNIST database of handwritten digits, http://yann.lecun.com/exdb/mnist/

const BOX_FRACTION = 20 / 28; // of the field's side
const MIN_INK = 16;

/** Returns the smallest box around the ink of `gray` (0 no ink, 255 ink), or null if there is no ink. */
export function inkBox(gray, width, height) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (gray[y * width + x] < MIN_INK) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

/** Returns the gray values of the field, side x side, for a drawing of width x height; null for an empty drawing. */
export function layOutLikeMnist(gray, width, height, side) {
  const box = inkBox(gray, width, height);
  if (!box) return null;
  const scale = (side * BOX_FRACTION) / Math.max(box.width, box.height);
  const small = {
    width: Math.max(1, Math.round(box.width * scale)),
    height: Math.max(1, Math.round(box.height * scale)),
  };
  small.gray = scaleDown(gray, width, box, small);
  return center(small, side);
}

/** Scales the box down to the small image; each pixel is the mean of the area that it covers. */
function scaleDown(gray, stride, box, small) {
  const columns = spans(box.width, small.width);
  const rows = spans(box.height, small.height);
  const scaled = new Float64Array(small.width * small.height);
  rows.forEach((row, y) => {
    columns.forEach((column, x) => {
      let [sum, area] = [0, 0];
      for (const [dy, tall] of row) {
        for (const [dx, wide] of column) {
          sum += gray[(box.top + dy) * stride + box.left + dx] * tall * wide;
          area += tall * wide;
        }
      }
      scaled[y * small.width + x] = sum / area;
    });
  });
  return scaled;
}

/** Returns, for each of `count` equal parts of `length` pixels, the pixels that it covers and the fraction of each. */
function spans(length, count) {
  return Array.from({ length: count }, (_, part) => {
    const [start, end] = [(part * length) / count, ((part + 1) * length) / count];
    const covered = [];
    for (let at = Math.floor(start); at < end && at < length; at++) {
      covered.push([at, Math.min(at + 1, end) - Math.max(at, start)]);
    }
    return covered;
  });
}

/** Puts the small image into the field with its center of mass in the middle, and no part of it outside. */
function center(small, side) {
  let [mass, massX, massY] = [0, 0, 0];
  small.gray.forEach((value, at) => {
    mass += value;
    massX += value * ((at % small.width) + 0.5);
    massY += value * (Math.floor(at / small.width) + 0.5);
  });
  const left = clamp(Math.round(side / 2 - massX / mass), side - small.width);
  const top = clamp(Math.round(side / 2 - massY / mass), side - small.height);
  const field = new Uint8ClampedArray(side * side);
  small.gray.forEach((value, at) => {
    field[(top + Math.floor(at / small.width)) * side + left + (at % small.width)] = value;
  });
  return field;
}

function clamp(value, max) {
  return Math.min(Math.max(value, 0), Math.max(max, 0));
}
