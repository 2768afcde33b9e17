// From an image file to what the encoder takes, as factorvae/datasets/images.py prepares a folder's
// images: upright, over white, the largest centred square, resized by a Lanczos filter.
"use strict";

const MOST_SIDE = 4096; // pixels; larger images are shrunk by the browser first

// blob: any image that the browser reads. Gives pixels in [0, 1], [size, size, channels].
async function preparedImage(blob, size, channels) {
  // Levels as they are in the file: the datasets know nothing of colour profiles either.
  const image = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const square = Math.min(image.width, image.height);
  const side = Math.min(square, MOST_SIDE);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, side, side);
  const left = Math.floor((image.width - square) / 2);
  const top = Math.floor((image.height - square) / 2);
  context.drawImage(image, left, top, square, square, 0, 0, side, side);
  const rgba = context.getImageData(0, 0, side, side).data;
  return Float32Array.from(resized(levelsOf(rgba, channels), side, size, channels), (v) => v / 255);
}

// RGBA -> RGB, or grey by the weights of ITU-R 601-2 in whole numbers.
function levelsOf(rgba, channels) {
  const levels = new Uint8ClampedArray(rgba.length / 4 * channels);
  for (let i = 0, o = 0; i < rgba.length; i += 4) {
    if (channels === 1) {
      levels[o++] = (rgba[i] * 19595 + rgba[i + 1] * 38470 + rgba[i + 2] * 7471 + 0x8000) >> 16;
    } else {
      for (let channel = 0; channel < 3; channel++) levels[o++] = rgba[i + channel];
    }
  }
  return levels;
}

// Levels [side, side, channels] -> [size, size, channels]: along rows, then along columns.
function resized(levels, side, size, channels) {
  if (side === size) return levels;
  const taps = lanczosTaps(side, size);
  const narrow = resizedAlong(levels, taps, side, size, channels, side * channels, channels);
  return resizedAlong(narrow, taps, size, size, channels, channels, size * channels);
}

// One axis: `across` lines, `lineStep` numbers apart, whose pixels are `step` apart.
function resizedAlong(levels, taps, across, size, channels, lineStep, step) {
  const alongRows = step === channels;
  const out = new Uint8ClampedArray(across * size * channels); // rounds and clips
  for (let line = 0; line < across; line++) {
    for (let place = 0; place < size; place++) {
      const { first, weights } = taps[place];
      const to = (alongRows ? line * size + place : place * across + line) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) {
          sum += weights[k] * levels[line * lineStep + (first + k) * step + channel];
        }
        out[to + channel] = sum;
      }
    }
  }
  return out;
}

// For each of `size` results, which of `side` pixels it is made of, with what weights.
function lanczosTaps(side, size) {
  const scale = side / size, widened = Math.max(scale, 1);
  const lanczos = (x) => {
    if (x === 0) return 1;
    const t = Math.PI * x;
    return Math.abs(x) < 3 ? Math.sin(t) / t * Math.sin(t / 3) / (t / 3) : 0;
  };
  return Array.from({ length: size }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 3 * widened + 0.5));
    const end = Math.min(side, Math.trunc(centre + 3 * widened + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) =>
      lanczos((first + k - centre + 0.5) / widened));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { first, weights: raw.map((weight) => weight / sum) };
  });
}
