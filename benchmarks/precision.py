"""Whether bfloat16 trains as float32 does: the logs of finished runs, laid side by side.

    python train.py --max_steps 5000 --seed 0 --output_dir runs/fp32_seed0
    python train.py --max_steps 5000 --seed 0 --output_dir runs/bf16_seed0 --precision bf16
    (the same for further seeds)
    python -m benchmarks.precision runs/fp32_seed* runs/bf16_seed* --steps 5000 --figure curves.png

The yardstick is the difference that another seed makes: a table gives, for each stretch of the run,
the mean over seeds under either precision and the standard deviation over the float32 seeds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from factorvae.files import CONFIG_NAME
from factorvae.run_log import read_log

FIGURES = {"recon": "reconstruction, nats", "kl": "KL, nats", "tc": "TC estimate, nats"}
STRETCHES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--figure", type=Path, help="draw the curves into this file")
    args = parser.parse_args()
    logs: dict[str, list[dict[str, np.ndarray]]] = {"fp32": [], "bf16": []}
    for run in args.runs:
        precision = json.loads((run / CONFIG_NAME).read_text())["precision"]
        logs[precision].append(read_log(run))

    edges = np.linspace(0, args.steps, STRETCHES + 1)
    print(
        "| steps | figure | " + " | ".join(f"{p}, {len(logs[p])} seeds" for p in logs) + " | sd |"
    )
    print("|---|---|---|---|---|")
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        for name in FIGURES:
            means = {
                precision: [
                    log[name][(log["step"] > low) & (log["step"] <= high)].mean() for log in many
                ]
                for precision, many in logs.items()
            }
            cells = " | ".join(f"{np.mean(values):.3f}" for values in means.values())
            deviation = np.std(means["fp32"], ddof=1)
            print(f"| {low:.0f} to {high:.0f} | {name} | {cells} | {deviation:.3f} |")

    if args.figure:
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 3), FIGURES.items(), strict=True):
            for precision, colour, dashes in (("fp32", "0.2", "-"), ("bf16", "tab:orange", "--")):
                for seed, log in enumerate(logs[precision]):
                    rows = log["step"] <= args.steps
                    shown = precision if seed == 0 else None
                    style = dict(color=colour, linestyle=dashes, linewidth=1, label=shown)
                    axes.plot(log["step"][rows], log[name][rows], **style)
            axes.set(xlabel="step", title=label)
            if name == "recon":
                axes.set_yscale("log")
        axes.legend(frameon=False)
        figure.savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
