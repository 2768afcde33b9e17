// The encoder and the decoder of factorvae/models.py in plain JavaScript.
//
// This text runs twice: in the page, which it gives the class `Network`, and in a worker made of
// it, which answers the page's messages (see the end). Where no worker can be had, the page calls
// the class itself: slower to the hand, the same to the eye.
"use strict";

// Maps lie channels-last, [height, width, channels], inside a border of one pixel that stays zero:
// the padding of every convolution, written once when the map is made.
class PaddedMap {
  constructor(size, channels) {
    this.size = size;
    this.channels = channels;
    this.pitch = (size + 2) * channels; // numbers from one row to the next
    this.values = new Float32Array((size + 2) * this.pitch);
  }

  // Where pixel (row, column) begins; -1 is the border.
  at(row, column) {
    return (row + 1) * this.pitch + (column + 1) * this.channels;
  }

  fill(pixels) {
    const width = this.size * this.channels;
    for (let row = 0; row < this.size; row++) {
      this.values.set(pixels.subarray(row * width, (row + 1) * width), this.at(row, 0));
    }
  }

  // The pixels without the border, [height, width, channels].
  pixels() {
    const width = this.size * this.channels;
    const pixels = new Float32Array(this.size * width);
    for (let row = 0; row < this.size; row++) {
      const start = this.at(row, 0);
      pixels.set(this.values.subarray(start, start + width), row * width);
    }
    return pixels;
  }
}

// One row of outputs of a convolution: every output is the sum of the products of a patch of the
// input and the weights of its channel. Channels-last, a patch is `runs` stretches of `length`
// numbers, `pitch` apart, so it is read where it lies, and no patch is copied first.
//
// A tile of 4 pixels and 2 channels shares what it loads: 6 loads for 8 products. (Larger tiles
// need more registers than there are.) Sums are kept in double precision by the language's rules.
//
// input, from: the numbers and where the first pixel's patch begins; step: from patch to patch.
// weights: [outputs, runs * length]. out, to: where the first output goes; outStep: from pixel to
// pixel. count: pixels, a multiple of 4.
function convolveRow(
  input, from, step, runs, length, pitch, weights, bias, outputs, out, to, outStep, count, rectify,
) {
  const size = runs * length;
  for (let pixel = 0; pixel < count; pixel += 4) {
    const first = from + pixel * step;
    const place = to + pixel * outStep;
    let channel = 0;
    for (; channel + 1 < outputs; channel += 2) {
      let a = bias[channel], b = bias[channel + 1];
      let a0 = a, a1 = a, a2 = a, a3 = a, b0 = b, b1 = b, b2 = b, b3 = b;
      let w = channel * size;
      for (let run = 0; run < runs; run++) {
        let i0 = first + run * pitch, i1 = i0 + step, i2 = i1 + step, i3 = i2 + step;
        for (const end = w + length; w < end; w++, i0++, i1++, i2++, i3++) {
          const u = weights[w], v = weights[w + size];
          const x0 = input[i0], x1 = input[i1], x2 = input[i2], x3 = input[i3];
          a0 += x0 * u; a1 += x1 * u; a2 += x2 * u; a3 += x3 * u;
          b0 += x0 * v; b1 += x1 * v; b2 += x2 * v; b3 += x3 * v;
        }
      }
      const o0 = place + channel, o1 = o0 + outStep, o2 = o1 + outStep, o3 = o2 + outStep;
      out[o0] = rectify && a0 < 0 ? 0 : a0; out[o0 + 1] = rectify && b0 < 0 ? 0 : b0;
      out[o1] = rectify && a1 < 0 ? 0 : a1; out[o1 + 1] = rectify && b1 < 0 ? 0 : b1;
      out[o2] = rectify && a2 < 0 ? 0 : a2; out[o2 + 1] = rectify && b2 < 0 ? 0 : b2;
      out[o3] = rectify && a3 < 0 ? 0 : a3; out[o3 + 1] = rectify && b3 < 0 ? 0 : b3;
    }
    if (channel < outputs) { // the last of an odd number: images have one or three channels
      let a0 = bias[channel], a1 = a0, a2 = a0, a3 = a0;
      let w = channel * size;
      for (let run = 0; run < runs; run++) {
        let i0 = first + run * pitch, i1 = i0 + step, i2 = i1 + step, i3 = i2 + step;
        for (const end = w + length; w < end; w++, i0++, i1++, i2++, i3++) {
          const u = weights[w];
          a0 += input[i0] * u; a1 += input[i1] * u; a2 += input[i2] * u; a3 += input[i3] * u;
        }
      }
      const o0 = place + channel;
      out[o0] = rectify && a0 < 0 ? 0 : a0;
      out[o0 + outStep] = rectify && a1 < 0 ? 0 : a1;
      out[o0 + 2 * outStep] = rectify && a2 < 0 ? 0 : a2;
      out[o0 + 3 * outStep] = rectify && a3 < 0 ? 0 : a3;
    }
  }
}

class Linear {
  // weights: [outputs, inputs], read from `source`, as every layer's.
  constructor(source, inputs, outputs) {
    this.weights = source.take(outputs * inputs);
    this.bias = source.take(outputs);
  }

  apply(x, rectify) {
    const { weights, bias } = this;
    const out = new Float32Array(bias.length);
    for (let row = 0, w = 0; row < out.length; row++) {
      let sum = bias[row];
      for (let k = 0; k < x.length; k++, w++) sum += x[k] * weights[w];
      out[row] = rectify && sum < 0 ? 0 : sum;
    }
    return out;
  }
}

// 4x4, stride 2, padding 1: [size, size, inputs] -> [size / 2, size / 2, outputs].
// weights: [outputs, 4 rows, 4 columns, inputs].
class DownConv {
  constructor(source, inputs, outputs, size) {
    this.weights = source.take(outputs * 16 * inputs);
    this.bias = source.take(outputs);
    this.out = new PaddedMap(size / 2, outputs);
  }

  apply(map) {
    const { out } = this;
    const inputs = map.channels;
    for (let row = 0; row < out.size; row++) {
      convolveRow(
        map.values, map.at(2 * row - 1, -1), 2 * inputs, 4, 4 * inputs, map.pitch,
        this.weights, this.bias, out.channels,
        out.values, out.at(row, 0), out.channels, out.size, true,
      );
    }
    return out;
  }
}

// The transposed convolution, gathered: outputs at an even or odd row and column each see 2x2
// inputs through 4 of the 16 taps, so it is four plain convolutions that interleave.
// weights: [even or odd row, even or odd column, outputs, 2 rows, 2 columns, inputs].
class UpConv {
  constructor(source, inputs, outputs, size, rectify) {
    this.rectify = rectify;
    this.weights = [];
    for (let part = 0; part < 4; part++) this.weights.push(source.take(outputs * 4 * inputs));
    this.bias = source.take(outputs);
    this.out = new PaddedMap(2 * size, outputs);
  }

  apply(map) {
    const { out } = this;
    const inputs = map.channels;
    for (let row = 0; row < map.size; row++) {
      for (let part = 0; part < 4; part++) {
        const down = part >> 1, right = part & 1;
        convolveRow(
          map.values, map.at(row + down - 1, right - 1), inputs, 2, 2 * inputs, map.pitch,
          this.weights[part], this.bias, out.channels,
          out.values, out.at(2 * row + down, right), 2 * out.channels, map.size, this.rectify,
        );
      }
    }
    return out;
  }
}

// float16 -> float32, by a table of all 65,536.
function widen(halves) {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24 // subnormal
      : exponent === 31 ? (fraction ? NaN : Infinity)
      : (1024 + fraction) * 2 ** (exponent - 25);
    table[bits] = bits & 0x8000 ? -size : size;
  }
  return Float32Array.from(halves, (bits) => table[bits]);
}

class Network {
  // shape: { size, imageChannels, channels, hidden, latents }, channels being those after each
  // halving of the encoder. halves: Uint16Array of all weights, in the order they are taken here.
  constructor(shape, halves) {
    const { size, imageChannels, channels, hidden, latents } = shape;
    const values = widen(halves);
    let taken = 0;
    const source = {
      take(count) {
        taken += count;
        return values.subarray(taken - count, taken);
      },
    };
    const last = channels[channels.length - 1];
    this.latents = latents;

    this.image = new PaddedMap(size, imageChannels);
    this.downConvs = channels.map((outputs, stage) =>
      new DownConv(source, stage ? channels[stage - 1] : imageChannels, outputs, size >> stage));
    this.encoderHidden = new Linear(source, 16 * last, hidden);
    this.encoderHead = new Linear(source, hidden, 2 * latents);

    this.decoderHidden = new Linear(source, latents, hidden);
    this.decoderExpand = new Linear(source, hidden, 16 * last);
    this.smallest = new PaddedMap(4, last);
    const falling = [...channels].reverse();
    this.upConvs = falling.map((inputs, stage) => new UpConv(
      source, inputs, falling[stage + 1] || imageChannels, 4 << stage, stage + 1 < falling.length,
    ));
    if (taken !== values.length) throw new Error(`${values.length} weights, ${taken} expected`);
  }

  // Pixels in [0, 1], [size, size, channels], of the code z [latents].
  decode(z) {
    let x = this.decoderHidden.apply(z, true);
    this.smallest.fill(this.decoderExpand.apply(x, true));
    let map = this.smallest;
    for (const layer of this.upConvs) map = layer.apply(map);
    const pixels = map.pixels();
    for (let i = 0; i < pixels.length; i++) pixels[i] = 1 / (1 + Math.exp(-pixels[i]));
    return pixels;
  }

  // The posterior's means and log variances, [2 * latents], of pixels as `decode` gives them.
  encode(pixels) {
    this.image.fill(pixels);
    let map = this.image;
    for (const layer of this.downConvs) map = layer.apply(map);
    return this.encoderHead.apply(this.encoderHidden.apply(map.pixels(), true), false);
  }
}

// In a worker: the first message brings the network, each later one a question.
if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  let network = null;
  self.onmessage = ({ data }) => {
    if (network === null) {
      network = new Network(data.shape, new Uint16Array(data.weights));
      self.postMessage({ ready: true });
      return;
    }
    const answer = network[data.method](data.values);
    self.postMessage({ answer }, [answer.buffer]);
  };
}
