"""How many pictures a second can explorer.html draw while a latent is dragged?

    python -m benchmarks.explorer

Node runs the page's own network, explorer_network.js, which a browser runs in a worker by the same
engine (V8), and decodes one code after the other. Told is the CPU time of a picture, which other
work on the machine disturbs least: the median of several turns, and their quartiles. What a
browser adds is to put the picture on its canvas.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.step import spread
from factorvae.errors import UserError, run_script
from factorvae.models import VAE
from factorvae.pages import explorer

MODELS = {  # image shape, hidden_dim
    "dSprites": ((1, 64, 64), 128),
    "colour": ((3, 64, 64), 256),
    "colour, 128x128": ((3, 128, 128), 256),
}
LATENTS = 10
SCRIPT = """
const fs = require("fs");
const [network, weights, shape, turns, count] = process.argv.slice(2);
const Network = new Function(fs.readFileSync(network, "utf8") + "; return Network;")();
const bytes = fs.readFileSync(weights);
const halves = new Uint16Array(new Uint8Array(bytes).buffer);  // a copy, which is aligned
const model = new Network(JSON.parse(shape), halves);
const code = new Float32Array(JSON.parse(shape).latents);
const draw = (times) => {
  for (let time = 0; time < times; time++) {
    for (let latent = 0; latent < code.length; latent++) code[latent] = Math.sin(time + latent);
    model.decode(code);
  }
};
draw(Number(count));
const taken = [];
for (let turn = 0; turn < Number(turns); turn++) {
  const start = process.cpuUsage();
  draw(Number(count));
  const used = process.cpuUsage(start);
  taken.push((used.user + used.system) / 1e6 / Number(count));
}
console.log(JSON.stringify(taken));
"""


def seconds_of_decoding(node: str, vae: VAE, turns: int, count: int) -> np.ndarray:
    """CPU seconds of a picture in each turn, [turns]."""
    with tempfile.TemporaryDirectory() as folder:
        script, weights = Path(folder) / "decode.js", Path(folder) / "weights"
        script.write_text(SCRIPT)
        weights.write_bytes(explorer.packed_weights(vae))
        network = explorer.FILES / "explorer_network.js"
        shape = json.dumps(explorer.network_shape(vae))
        command = [node, script, network, weights, shape, str(turns), str(count)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array(json.loads(answer.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--count", type=int, default=50, help="pictures in a turn")
    arguments = parser.parse_args()
    node = shutil.which("node")
    if node is None:
        raise UserError("node is not installed")
    for name, (image_shape, hidden_dim) in MODELS.items():
        vae = VAE(image_shape, LATENTS, hidden_dim, torch.Generator().manual_seed(0))
        seconds = seconds_of_decoding(node, vae, arguments.turns, arguments.count)
        print(f"{name}: {spread(1000 * seconds, '.1f')} ms, {1 / np.median(seconds):.0f} a second")


if __name__ == "__main__":
    sys.exit(run_script(main))
