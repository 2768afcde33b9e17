// The page: who asks the network (Client), what is shown (State), and the parts that show it.
//
// Parts know the state and not each other. Each is told of every change by its reason: "code" (z),
// "hand" (which latent is in hand), "source" (the image that the code comes from), "ends" (the two
// images to go between), "factors" (the true factors of the image) or "asked" (true factors whose
// image and code are yet to be made).
"use strict";

// --- the network, asked from here ----------------------------------------------------------------

// One question is out at a time and others wait, one of each kind: a newer one of its kind takes
// its place. So a drag is answered as fast as the network goes, and is never behind the hand; and
// the picture comes before the strips.
const KINDS = ["picture", "encode", "factors", "strip", "blend"];

class Client {
  constructor(shape, weights, source) {
    this.shape = shape;
    this.halves = weights;
    this.waiting = new Map();
    this.asked = null; // { method, values, resolve }
    this.worker = this.startWorker(source);
    if (this.worker === null) this.network = new Network(shape, weights);
  }

  startWorker(source) {
    let worker;
    try {
      worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    } catch {
      return null; // some browsers allow no worker in a page from the disk
    }
    worker.onmessage = ({ data }) => data.answer && this.answered(data.answer);
    worker.onerror = (event) => {
      event.preventDefault();
      this.worker = null;
      this.network = new Network(this.shape, this.halves);
      if (this.asked !== null) this.send();
    };
    worker.postMessage({ shape: this.shape, weights: this.halves.buffer });
    return worker;
  }

  // A promise of the answer, or of null where a newer question of the kind took the place.
  ask(kind, method, values) {
    return new Promise((resolve) => {
      const older = this.waiting.get(kind);
      if (older) older.resolve(null);
      this.waiting.set(kind, { method, values: Float32Array.from(values), resolve });
      if (this.asked === null) this.next();
    });
  }

  next() {
    const kind = KINDS.find((one) => this.waiting.has(one));
    if (kind === undefined) return;
    this.asked = this.waiting.get(kind);
    this.waiting.delete(kind);
    this.send();
  }

  send() {
    const { method, values } = this.asked;
    if (this.worker !== null) {
      this.worker.postMessage({ method, values });
    } else {
      setTimeout(() => this.answered(this.network[method](values)));
    }
  }

  answered(answer) {
    const { resolve } = this.asked;
    this.asked = null;
    this.next();
    resolve(answer);
  }
}

// --- what is shown -------------------------------------------------------------------------------

class State {
  constructor(model) {
    this.model = model;
    this.parts = [];
    this.z = Float32Array.from(model.images[0].code);
    this.hand = model.latents[0].index;
    this.picture = null; // what z decodes to, where that is known already
    this.source = null; // { name, code, picture }, null for a code that comes from no image
    this.home = null; // the last source: where a reset leads
    this.ends = [endOfImage(model, 0), endOfImage(model, Math.min(1, model.images.length - 1))];
    this.factors = model.drawing ? [...model.images[0].factors] : null;
  }

  changed(...reasons) {
    for (const part of this.parts) {
      for (const reason of reasons) part.changed(reason);
    }
  }

  setLatent(latent, value) {
    this.z[latent] = value;
    this.picture = null;
    const reasons = this.hold(latent);
    this.changed(...reasons, "code");
  }

  take(latent) {
    this.changed(...this.hold(latent));
  }

  hold(latent) {
    if (latent === this.hand) return [];
    this.hand = latent;
    return ["hand"];
  }

  // A code that comes from `source`, or from no image.
  setCode(code, source = null, picture = null) {
    this.z = Float32Array.from(code);
    this.picture = picture;
    this.source = source;
    this.home = source || this.home;
    this.changed("source", "code");
  }

  // An image and its code; its factors too where they are known.
  start(source) {
    this.setCode(source.code, source);
    if (!this.factors || !source.factors) return;
    this.factors = [...source.factors];
    this.changed("factors");
  }

  setEnd(place, end) {
    this.ends[place] = end;
    this.changed("ends");
  }

  setFactor(factor, index) {
    this.factors[factor] = index;
    this.changed("asked");
  }

  // The fragment of the page's address. Codes are lists of numbers, images of the page i0, i1, ...
  toHash() {
    const list = (code) => Array.from(code, (value) => +value.toFixed(3)).join(",");
    const end = ({ image, code }) => (image === undefined ? list(code) : `i${image}`);
    const texts = [`z=${list(this.z)}`, `hand=${this.hand}`];
    if (this.source && this.source.image !== undefined) texts.push(`image=${this.source.image}`);
    texts.push(`from=${end(this.ends[0])}`, `to=${end(this.ends[1])}`);
    if (this.factors) texts.push(`factors=${this.factors.join(",")}`);
    return `#${texts.join("&")}`;
  }

  // Take what is sound in a fragment and leave the rest; whether it held a code.
  fromHash(hash, sources) {
    const { model } = this;
    const given = new URLSearchParams(hash.slice(1));
    const whole = (text, count) => (/^\d+$/.test(text) && +text < count ? +text : null);
    const list = (text) => {
      const code = (text || "").split(",").map((part) => (part.trim() === "" ? NaN : +part));
      return code.length === model.network.latents && code.every(Number.isFinite) ? code : null;
    };
    const end = (text) => {
      const image = /^i/.test(text || "") ? whole(text.slice(1), model.images.length) : null;
      if (image !== null) return endOfImage(model, image);
      return list(text) && { code: list(text) };
    };
    const code = list(given.get("z"));
    if (code === null) return false;
    this.z = Float32Array.from(code);
    this.hand = whole(given.get("hand"), model.network.latents) ?? this.hand;
    const image = whole(given.get("image"), model.images.length);
    this.picture = null;
    this.source = image === null ? null : sources[image];
    this.home = this.source || this.home || sources[0];
    this.ends = this.ends.map((old, place) => end(given.get(["from", "to"][place])) || old);
    if (this.factors) {
      const asked = (given.get("factors") || "").split(",");
      const { values } = model.drawing;
      const indices = values.map((each, factor) => whole(asked[factor] || "", each.length));
      if (!indices.includes(null)) this.factors = indices;
    }
    this.changed("source", "hand", "code", "ends", "factors");
    return true;
  }
}

function endOfImage(model, image) {
  return { image, code: model.images[image].code };
}

// --- small helpers -------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && +text !== 0 ? `\u2212${text}` : text;
}

// Makes a canvas ready for pictures of the model's size.
function prepareCanvas(canvas, shape) {
  canvas.width = canvas.height = shape.size;
  canvas.classList.toggle("crisp", shape.size <= 64);
  return canvas;
}

// pixels: in [0, 1], [size, size, channels].
function paint(canvas, pixels, channels) {
  const count = canvas.width * canvas.height;
  const picture = new ImageData(canvas.width, canvas.height);
  const { data } = picture;
  for (let pixel = 0; pixel < count; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const from = channels === 1 ? pixel : 3 * pixel + channel;
      data[4 * pixel + channel] = 255 * pixels[from];
    }
    data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function say(text) {
  byId("status").textContent = text;
}

// Keys that move a slider by `step`, finely with Shift, far with the page keys.
function keyMove(event, step, fine, far) {
  if (event.altKey || event.ctrlKey || event.metaKey) return 0;
  const one = event.shiftKey ? fine : step;
  const moves = {
    ArrowRight: one, ArrowUp: one, ArrowLeft: -one, ArrowDown: -one, PageUp: far, PageDown: -far,
  };
  return moves[event.key] || 0;
}

// --- the parts of the page -----------------------------------------------------------------------

class Stage {
  constructor(state, client) {
    this.state = state;
    this.client = client;
    const { network } = state.model;
    this.decoded = prepareCanvas(byId("decoded"), network);
    this.original = prepareCanvas(byId("original"), network);
    this.frames = 0;
    this.known = 0; // pictures that were there without a question
  }

  changed(reason) {
    if (reason === "code") this.decode();
    if (reason === "source") this.showOriginal();
  }

  async decode() {
    const { picture, z } = this.state;
    if (picture !== null) this.known++;
    const { known } = this;
    const pixels = picture || await this.client.ask("picture", "decode", z);
    if (pixels === null || known !== this.known) return; // overtaken
    paint(this.decoded, pixels, this.state.model.network.imageChannels);
    this.frames++;
  }

  showOriginal() {
    const { source } = this.state;
    const context = this.original.getContext("2d");
    context.clearRect(0, 0, this.original.width, this.original.height);
    if (source) context.drawImage(source.picture, 0, 0);
    const name = source ? source.name : "no image";
    byId("original-name").textContent = name;
    byId("original-name").title = name;
    this.original.setAttribute("aria-label", source ? `The image: ${name}` : "No image");
  }
}

class Bases {
  constructor(state, sources) {
    this.state = state;
    this.buttons = sources.map((source) => {
      const picture = element("img", { src: source.picture.src, alt: "" });
      picture.classList.toggle("crisp", state.model.network.size <= 64);
      const button = element("button", { type: "button", title: source.name }, picture);
      button.setAttribute("aria-label", source.name);
      button.addEventListener("click", () => state.start(source));
      return button;
    });
    byId("bases").append(...this.buttons);
  }

  changed(reason) {
    if (reason !== "source") return;
    const { source } = this.state;
    this.buttons.forEach((button, image) => {
      button.setAttribute("aria-pressed", String(source !== null && source.image === image));
    });
  }
}

class Latents {
  constructor(state) {
    this.state = state;
    this.rows = new Map();
    const live = byId("latents"), dead = byId("dead");
    const { latents } = state.model;
    for (const latent of latents) {
      (latent.dead ? dead.querySelector("div") : live).append(this.makeRow(latent));
    }
    const count = latents.filter((latent) => latent.dead).length;
    dead.hidden = count === 0;
    dead.open = count === latents.length;
    dead.querySelector("summary").textContent =
      `${count} dead latent${count === 1 ? "" : "s"} (KL of ${state.model.deadKl} or less)`;
  }

  makeRow(latent) {
    const { state } = this;
    const { limit } = state.model;
    const id = `z${latent.index}`;
    const input = element("input", { type: "range", id, min: -limit, max: limit, step: 0.01 });
    const share = (value) => Math.min(1, Math.max(0, (value + limit) / (2 * limit)));
    const band = element("span", { className: "band" });
    band.style.setProperty("--low", share(latent.low));
    band.style.setProperty("--high", share(latent.high));
    const role = `KL ${latent.kl.toFixed(2)}${latent.role ? `, ${latent.role}` : ""}`;
    const roleId = `${id}-role`;
    const output = element("output", { htmlFor: id });
    const row = element(
      "div", { className: "row" },
      element("label", { htmlFor: id, textContent: id }),
      element("span", { className: "role", id: roleId, textContent: role }),
      element("div", { className: "slider" }, band, element("span", { className: "zero" }), input),
      output,
    );
    input.setAttribute("aria-describedby", roleId);
    row.addEventListener("pointerdown", () => state.take(latent.index));
    input.addEventListener("focus", () => state.take(latent.index));
    input.addEventListener("input", () => state.setLatent(latent.index, +input.value));
    input.addEventListener("keydown", (event) => {
      const move = keyMove(event, 0.1, 0.01, 1);
      if (move === 0) return;
      event.preventDefault();
      const moved = Math.round((state.z[latent.index] + move) * 100) / 100;
      state.setLatent(latent.index, Math.min(limit, Math.max(-limit, moved)));
    });
    this.rows.set(latent.index, { row, input, output, role: latent.role });
    return row;
  }

  changed(reason) {
    if (reason === "code") {
      for (const [latent, { input, output, role }] of this.rows) {
        const value = this.state.z[latent];
        if (+input.value !== value) input.value = value;
        const text = signed(value);
        if (output.textContent === text) continue;
        output.textContent = text;
        input.setAttribute("aria-valuetext", role ? `${text}, ${role}` : text);
      }
    }
    if (reason === "hand") {
      for (const [latent, { row }] of this.rows) {
        row.classList.toggle("held", latent === this.state.hand);
      }
      for (const name of document.querySelectorAll(".in-hand")) {
        name.textContent = `z${this.state.hand}`;
      }
    }
  }
}

// Pictures side by side, decoded one by one as the network has time.
class Strip {
  // place: an element. codes(): the codes to decode. labels: texts below. choose(number): a click.
  constructor(place, kind, client, shape, { labels, codes, choose }) {
    Object.assign(this, { kind, client, shape, codes });
    this.key = null;
    this.cells = labels.map((label, number) => {
      const canvas = prepareCanvas(document.createElement("canvas"), shape);
      const button = element("button", { type: "button" }, canvas, label);
      button.addEventListener("click", () => choose(number));
      return { button, canvas };
    });
    place.append(...this.cells.map(({ button }) => button));
  }

  // Draw anew, unless the codes are the ones that are shown or on their way.
  async show() {
    const codes = this.codes();
    const key = codes.map((code) => Array.from(code, (value) => value.toFixed(4)).join()).join(";");
    if (key === this.key) return;
    this.key = key;
    for (const [number, code] of codes.entries()) {
      const pixels = await this.client.ask(this.kind, "decode", code);
      if (key !== this.key) return;
      if (pixels) paint(this.cells[number].canvas, pixels, this.shape.imageChannels);
    }
  }

  press(number) {
    this.cells.forEach(({ button }, cell) => {
      button.setAttribute("aria-pressed", String(cell === number));
    });
  }
}

class Traversal {
  constructor(state, client) {
    this.state = state;
    const { limit, network } = state.model;
    this.values = Array.from({ length: 7 }, (_, number) => limit * (number - 3) / 3);
    this.strip = new Strip(byId("strip"), "strip", client, network, {
      labels: this.values.map((value) => signed(value, Number.isInteger(limit) ? 0 : 1)),
      codes: () => this.values.map((value) => {
        const code = Float32Array.from(state.z);
        code[state.hand] = value;
        return code;
      }),
      choose: (number) => state.setLatent(state.hand, this.values[number]),
    });
  }

  changed(reason) {
    if (reason !== "code" && reason !== "hand") return;
    if (reason === "hand") this.describe();
    this.strip.show();
    const apart = this.values.map((value) => Math.abs(value - this.state.z[this.state.hand]));
    this.strip.press(apart.indexOf(Math.min(...apart)));
  }

  describe() {
    const latent = this.state.model.latents.find(({ index }) => index === this.state.hand);
    const known = latent.known.map(([name, share]) => `${Math.round(100 * share)} % of ${name}`);
    byId("hand-note").textContent =
      `98 % of the dataset's codes lie between ${signed(latent.low)} and ${signed(latent.high)}.` +
      (known.length ? ` The latent knows ${known.join(" and ")}.` : "");
  }
}

class Blend {
  constructor(state, client) {
    this.state = state;
    const { network, images } = state.model;
    this.slider = byId("blend-slider");
    const shares = Array.from({ length: 7 }, (_, number) => number / 6);
    this.strip = new Strip(byId("blend-strip"), "blend", client, network, {
      labels: shares.map((share) => `${Math.round(100 * share)} %`),
      codes: () => shares.map((share) => this.code(share)),
      choose: (number) => this.go(shares[number]),
    });
    this.selects = ["end-a", "end-b"].map((id, place) => {
      const which = ["First", "Second"][place];
      const names = images.map(({ name }, image) => new Option(name, image));
      const select = element("select", {}, ...names, new Option("a code of yours", "code"));
      select.setAttribute("aria-label", `${which} image`);
      select.addEventListener("change", () => {
        const own = select.value === "code";
        state.setEnd(place, own ? { code: [...state.z] } : endOfImage(state.model, +select.value));
      });
      const take = element("button", { type: "button", textContent: "Take current code" });
      take.setAttribute("aria-label", `${which}: take the current code`);
      take.addEventListener("click", () => state.setEnd(place, { code: [...state.z] }));
      const caption = element("strong", { textContent: which });
      byId(id).append(caption, select, take);
      return select;
    });
    this.slider.addEventListener("input", () => this.go(+this.slider.value));
  }

  code(share) {
    const [first, second] = this.state.ends;
    return first.code.map((value, latent) => value + share * (second.code[latent] - value));
  }

  go(share) {
    this.slider.value = share;
    this.state.setCode(this.code(share));
  }

  changed(reason) {
    if (reason === "code") {
      const same = (share) => this.code(share).every((value, latent) =>
        Math.abs(value - this.state.z[latent]) < 1e-3);
      const number = Array.from({ length: 7 }, (_, step) => step / 6).findIndex(same);
      this.strip.press(number);
    }
    if (reason !== "ends") return;
    this.selects.forEach((select, place) => {
      select.value = this.state.ends[place].image ?? "code";
    });
    this.strip.show();
  }
}

// Curves of the latent in hand over each factor, a line for each shape where there are shapes.
class Responses {
  constructor(state) {
    this.state = state;
    this.found = state.model.responses;
    if (this.found === null) return;
    const section = byId("responses");
    section.hidden = false;
    this.charts = section.querySelector(".charts");
    const { groups } = this.found;
    section.querySelector(".legend").append(...groups.map((name, group) => {
      const line = drawn("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" });
      line.append(drawn("path", { d: "M0 4H30", class: toneOf(group) }));
      return element("span", {}, line, name);
    }));
  }

  changed(reason) {
    if (this.found === null) return;
    if (reason === "hand") this.draw();
    if (reason === "code") this.mark();
  }

  draw() {
    const { hand } = this.state;
    const { factors, most } = this.found;
    const reach = ({ lines }) => {
      const values = lines.flat().map((codes) => codes[hand]).filter((value) => value !== null);
      return Math.max(...values) - Math.min(...values);
    };
    // Of many factors only those that the latent answers to most, in their own order.
    const kept = [...factors].sort((a, b) => reach(b) - reach(a)).slice(0, most);
    const shown = factors.filter((factor) => kept.includes(factor));
    byId("responses-note").textContent =
      "The mean of the latent while a factor takes its values; the dashed line is where the latent " +
      "stands now." + (shown.length < factors.length
        ? ` The ${most} of ${factors.length} factors that it answers to most.` : "");
    this.marks = [];
    this.charts.replaceChildren(...shown.map((factor) => this.chart(factor)));
    this.mark();
  }

  chart({ name, labels, points, lines }) {
    const { hand } = this.state;
    const left = 26, top = 20, width = 160, height = 84;
    const chart = drawn("svg", { viewBox: `0 0 ${left + width + 8} ${top + height + 18}` });
    chart.setAttribute("role", "img");
    const ends = lines[0].map((codes) => codes[hand]).filter((value) => value !== null);
    chart.setAttribute("aria-label", `z${hand} over ${name}: ` +
      `${signed(ends[0])} at ${labels[0]}, ${signed(ends[ends.length - 1])} at ` +
      labels[labels.length - 1]);
    const count = lines[0].length;
    const x = (place) => left + width * (points ? (place + 0.5) / count
      : count > 1 ? place / (count - 1) : 0.5);
    const y = (value) => this.y(value, top, height);
    chart.append(
      drawn("text", { x: left, y: 12, class: "name" }, name),
      drawn("rect", { x: left, y: top, width, height, class: "frame" }),
      drawn("path", { d: `M${left} ${y(0)}h${width}`, class: "frame" }),
    );
    for (const value of [-this.limit, 0, this.limit]) {
      chart.append(drawn("text", { x: left - 4, y: y(value) + 4, "text-anchor": "end" },
        signed(value, Number.isInteger(value) ? 0 : 1)));
    }
    const ticks = points ? labels.map((_, place) => place) : [0, count - 1];
    for (const place of ticks) {
      const anchor = points ? "middle" : place === 0 ? "start" : "end";
      chart.append(drawn("text", { x: x(place), y: top + height + 14, "text-anchor": anchor },
        labels[place]));
    }
    lines.forEach((line, group) => {
      let path = "", broken = true;
      line.forEach((codes, place) => {
        const value = codes[hand];
        broken ||= value === null;
        if (value === null) return;
        if (points) {
          chart.append(drawn("circle", { cx: x(place), cy: y(value), r: 4, class:
            `dot tone${this.found.groups.length ? place % 4 : 0}` }));
        } else {
          path += `${broken ? "M" : "L"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
        }
        broken = false;
      });
      if (path) chart.append(drawn("path", { d: path, class: toneOf(group) }));
    });
    const mark = drawn("path", { d: `M${left} 0h${width}`, class: "now" });
    this.marks.push({ mark, top, height });
    chart.append(mark);
    return chart;
  }

  get limit() {
    return this.state.model.limit;
  }

  y(value, top, height) {
    const inside = Math.min(this.limit, Math.max(-this.limit, value));
    return top + height * (0.5 - inside / (2 * this.limit));
  }

  mark() {
    for (const { mark, top, height } of this.marks) {
      const y = this.y(this.state.z[this.state.hand], top, height);
      mark.setAttribute("transform", `translate(0 ${y})`);
    }
  }
}

function toneOf(group) {
  return `curve tone${group % 4} dash${group % 4}`;
}

// Sliders of the true factors, where the page can draw the dataset's images itself.
class Factors {
  constructor(state, client) {
    this.state = state;
    this.client = client;
    const { drawing, network } = state.model;
    if (drawing === null) return;
    byId("factors").hidden = false;
    this.picture = prepareCanvas(byId("true-picture"), network);
    this.reconstruction = prepareCanvas(byId("reconstruction"), network);
    this.rows = drawing.names.map((name, factor) => {
      const id = `factor-${factor}`;
      const last = drawing.values[factor].length - 1;
      const input = element("input", { type: "range", id, min: 0, max: last, step: 1 });
      input.addEventListener("input", () => state.setFactor(factor, +input.value));
      const output = element("output", { htmlFor: id });
      byId("factor-sliders").append(element(
        "div", { className: "row" },
        element("label", { htmlFor: id, textContent: name }),
        element("div", { className: "slider" }, input), output,
      ));
      return { input, output };
    });
  }

  changed(reason) {
    if (this.state.model.drawing === null || (reason !== "factors" && reason !== "asked")) return;
    this.asked = reason === "asked";
    this.label();
    this.show(this.asked);
  }

  label() {
    const { drawing } = this.state.model;
    this.rows.forEach(({ input, output }, factor) => {
      const index = this.state.factors[factor];
      const text = drawing.labels[factor][index];
      input.value = index;
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    });
  }

  // Draw, encode and decode; the page takes the code if it was `asked` for and still is.
  async show(asked) {
    const { state, client } = this;
    const { drawing, network } = state.model;
    const factors = [...state.factors];
    const pixels = drawSprite(drawing, factors);
    paint(this.picture, pixels, network.imageChannels);
    const posterior = await client.ask("encode", "encode", pixels);
    if (posterior === null) return;
    const code = posterior.slice(0, network.latents);
    const shown = await client.ask("factors", "decode", code);
    if (shown === null) return;
    paint(this.reconstruction, shown, network.imageChannels);
    if (!asked || !this.asked) return;
    state.setCode(code, { name: "true picture", code, picture: this.picture, factors }, shown);
  }
}

// Images from elsewhere: chosen, dropped or pasted.
class OwnImage {
  constructor(state, client) {
    this.state = state;
    this.client = client;
    byId("file").addEventListener("change", ({ target }) => {
      this.take(target.files[0]);
      target.value = ""; // so that the same file can be chosen again
    });
    const over = (isOver) => document.body.classList.toggle("dragging-over", isOver);
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      over(true);
    });
    document.addEventListener("dragleave", (event) => over(event.relatedTarget !== null));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      over(false);
      this.take(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => {
      if (event.clipboardData.files.length) this.take(event.clipboardData.files[0]);
    });
  }

  async take(file) {
    if (!file) return;
    const { network } = this.state.model;
    let pixels;
    try {
      pixels = await preparedImage(file, network.size, network.imageChannels);
    } catch {
      say(`${file.name} is no image that this browser can read.`);
      return;
    }
    const posterior = await this.client.ask("encode", "encode", pixels);
    if (posterior === null) return;
    const picture = prepareCanvas(document.createElement("canvas"), network);
    paint(picture, pixels, network.imageChannels);
    const code = Array.from(posterior.subarray(0, network.latents));
    this.state.start({ name: file.name, code, picture });
    say(`${file.name} is encoded.`);
  }

  changed() {}
}

// The page's address follows the state, a little after it: browsers ration such changes.
class Address {
  constructor(state, sources) {
    this.state = state;
    this.timer = null;
    window.addEventListener("hashchange", () => {
      if (location.hash !== this.written) state.fromHash(location.hash, sources);
    });
    byId("copy").addEventListener("click", () => this.copy());
  }

  changed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), 300);
  }

  write() {
    clearTimeout(this.timer);
    this.written = this.state.toHash();
    history.replaceState(null, "", this.written);
  }

  async copy() {
    this.write();
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link is copied.");
    } catch {
      say(`The link: ${location.href}`); // where the page may not write to the clipboard
    }
  }
}

// --- together ------------------------------------------------------------------------------------

function decodeWeights(text) {
  const bytes = atob(text);
  const values = new Uint8Array(bytes.length);
  for (let i = 0; i < values.length; i++) values[i] = bytes.charCodeAt(i);
  // float16 lies in the file with the low byte first, as in every machine that has a browser
  return new Uint16Array(values.buffer);
}

function standardNormal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

async function start() {
  const model = JSON.parse(byId("description").textContent);
  const client = new Client(
    model.network, decodeWeights(byId("weights").textContent), byId("network").textContent,
  );
  const sources = model.images.map((image, number) =>
    ({ ...image, image: number, picture: element("img", { src: image.src }) }));
  await Promise.all(sources.map(({ picture }) => picture.decode()));
  const state = new State(model);
  const stage = new Stage(state, client);
  state.parts.push(
    stage, new Bases(state, sources), new Latents(state), new Traversal(state, client),
    new Responses(state), new Factors(state, client), new Blend(state, client),
    new OwnImage(state, client),
  );
  byId("random").addEventListener("click", () => {
    state.setCode(Array.from({ length: model.network.latents }, standardNormal));
  });
  byId("reset").addEventListener("click", () => state.start(state.home));
  if (!state.fromHash(location.hash, sources)) {
    state.changed("ends", "hand");
    state.start(sources[0]);
  }
  state.parts.push(new Address(state, sources));
  window.explorer = { model, client, state, stage }; // for the console
}

start();
