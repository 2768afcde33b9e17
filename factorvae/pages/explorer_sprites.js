// Draws the images of dSprites and of its versions in colour and noise from their factors, as
// factorvae/datasets/ does, pixel for pixel: vertices are snapped to 1/256 pixel, and what follows
// is whole numbers.
"use strict";

const SPRITE_SIZE = 64;
const SPRITE_UNIT = 0.3 * SPRITE_SIZE; // pixels; a square of scale 1 has this side
const SUBPIXELS = 256;

// Vertices [[x, y], ...] in pixels from the centre, y down, at scale 1 and angle 0.
function spriteOutline(shape) {
  const along = (count, point) => Array.from({ length: count }, (_, i) => {
    const [x, y] = point(i * (2 * Math.PI / count));
    return [SPRITE_UNIT * x, SPRITE_UNIT * y];
  });
  if (shape === 1) {
    const corners = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]];
    return corners.map(([x, y]) => [SPRITE_UNIT * x, SPRITE_UNIT * y]);
  }
  if (shape === 2) {
    return along(100, (t) => [0.5 * 1.33 * Math.cos(t), 0.5 * Math.sin(t) / 1.33]);
  }
  return along(150, (t) => [
    16 * Math.sin(t) ** 3 / 32,
    -(13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) - Math.cos(4 * t)) / 29 - 0.075,
  ]);
}

// To the nearest whole number, halves to the even one, as numpy rounds.
function roundHalfEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

// Bits [64 * 64] of a shape, scale, angle and position, each a value (not an index) of its factor.
function spriteBits(shape, scale, angle, posX, posY) {
  const cos = Math.cos(angle), sin = Math.sin(angle);
  const centreX = SPRITE_SIZE / 4 + SPRITE_SIZE / 2 * posX;
  const centreY = SPRITE_SIZE / 4 + SPRITE_SIZE / 2 * posY;
  const vertices = spriteOutline(shape).map(([x, y]) => [
    roundHalfEven(SUBPIXELS * (scale * (x * cos + y * sin) + centreX)),
    roundHalfEven(SUBPIXELS * (scale * (y * cos - x * sin) + centreY)),
  ]);
  const bits = new Uint8Array(SPRITE_SIZE * SPRITE_SIZE);
  vertices.forEach(([x, y], number) => {
    const [nextX, nextY] = vertices[(number + 1) % vertices.length];
    const width = nextX - x, height = nextY - y;
    for (let row = 0; row < SPRITE_SIZE; row++) {
      const centre = SUBPIXELS * row + SUBPIXELS / 2;
      if (!(Math.min(y, nextY) < centre && centre <= Math.max(y, nextY))) continue;
      // Even-odd rule: the edge inverts its row from the first column whose centre is not left of
      // it. The quotient of such small whole numbers is never rounded across a whole number.
      const numerator = (x - SUBPIXELS / 2) * height + (centre - y) * width;
      const column = Math.ceil(numerator / (SUBPIXELS * height));
      for (let k = Math.max(0, column); k < SPRITE_SIZE; k++) bits[row * SPRITE_SIZE + k] ^= 1;
    }
  });
  return bits;
}

// A bijection of 32-bit words that looks random, and bytes made of it: see dsprites_variants.py.
function scrambled(number) {
  number = Math.imul(number ^ (number >>> 16), 0x7FEB352D);
  number = Math.imul(number ^ (number >>> 15), 0x846CA68B);
  return number ^ (number >>> 16);
}

function randomLevel(seed, place) {
  return (scrambled(seed ^ scrambled(place >> 2)) >>> (8 * (place & 3))) & 255;
}

// drawing: { paint, values } as explorer.py describes it; factors: an index for each factor.
// Pixels in [0, 1], channels-last.
function drawSprite(drawing, factors) {
  const { paint, values } = drawing;
  const bits = spriteBits(...factors.map((index, factor) => values[factor][index]));
  if (paint === "white") return Float32Array.from(bits);
  const image = factors.reduce((sum, index, factor) => sum * values[factor].length + index, 0);
  const seed = scrambled((image + 0x9E3779B9) | 0);
  const pixels = new Float32Array(3 * bits.length);
  for (let channel = 0; channel < 3; channel++) {
    const colour = 128 + (randomLevel(seed, channel) >> 1);
    for (let place = 0; place < bits.length; place++) {
      const level = paint === "colour" ? bits[place] * colour
        : bits[place] ? 255
        : randomLevel(seed, channel * bits.length + place);
      pixels[3 * place + channel] = level / 255;
    }
  }
  return pixels;
}
