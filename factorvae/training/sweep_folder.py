"""What is told and kept of a sweep: `study.json` in its folder, and a table at the end.

The file is a JSON object:

    format, version     what the file is
    settings            what its runs have in common, as in their config.json
    runs                of each run: folder, method, beta, gamma, seed (and the capacity of
                        annealed), state ('new', 'stopped', 'finished' or 'failed'), steps done,
                        steps of the whole run (until), error, and the figures of the last row of
                        its log
"""

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from factorvae.config import TrainConfig, ordered_steps
from factorvae.errors import UserError
from factorvae.files import (
    CHECKPOINT_NAME,
    CONFIG_NAME,
    SWEEP_NAME,
    json_object,
    remove_left_by_killed,
    strict_json,
    whole_file,
    written_to,
)
from factorvae.methods import METHOD_DEFAULTS, METHOD_SETTINGS, TOLD_BY_GAMMA
from factorvae.run_log import SHOWN
from factorvae.training.run_folder import SWEPT, WAYS_OUT, differing_flags, run_name

FORMAT = "factorvae study"
VERSION = 1


def write_sweep(
    folder: Path, configs: Sequence[TrainConfig], summaries: Sequence[dict[str, object]]
) -> None:
    """Write study.json whole; runs that an earlier command of its settings put there stay listed.

    Raises:
        UserError: the folder cannot be written to.
    """
    settings = _common(dataclasses.asdict(configs[0]))
    listed = {run["folder"] for run in summaries}
    there = read_sweep(folder)
    same = not _differences(folder, there, configs)  # otherwise --overwrite began anew
    earlier = [run for run in there["runs"] if same and run["folder"] not in listed]
    content = {"format": FORMAT, "version": VERSION, "settings": settings}
    content["runs"] = [*earlier, *summaries]
    with written_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_left_by_killed(folder / SWEEP_NAME)
        with whole_file(folder / SWEEP_NAME) as file:
            file.write(f"{json.dumps(content, indent=2)}\n".encode())


def check_same_sweep(folder: Path, configs: Sequence[TrainConfig]) -> None:
    """Raise UserError where the folder is a run's, or a sweep's of other settings.

    With --overwrite, a sweep may begin anew under others.
    """
    if os.path.exists(folder / CHECKPOINT_NAME):
        raise UserError(f"{folder} holds a run; a sweep needs a folder of its own: --output_dir")
    differences = _differences(folder, read_sweep(folder), configs)
    if differences and not configs[0].overwrite:
        raise UserError(f"{folder} holds another sweep: {'; '.join(differences)}. {WAYS_OUT}")


OF_METHODS = {*METHOD_SETTINGS, *METHOD_DEFAULTS} - {*SWEPT}  # the same in all runs of a method


def _common(settings: dict) -> dict:
    """Those that all runs of a sweep have: neither swept, nor filled by their methods."""
    differing = {*SWEPT, *OF_METHODS, "output_dir"}
    return {name: value for name, value in settings.items() if name not in differing}


def _differences(folder: Path, sweep: dict, configs: Sequence[TrainConfig]) -> list[str]:
    """Flags that a sweep was made with and these configs have not, but for those that are swept."""
    there = _common(sweep.get("settings", {}))
    if isinstance(there.get("wake_at"), int):  # as it once was: a step, or 0 for none
        there = {**there, "wake_at": ordered_steps(there["wake_at"])}
    differences = differing_flags(configs[0], dataclasses.asdict(configs[0]) | there)
    own = {run_name([config]) for config in configs}  # each of which is compared by itself
    others = [run for run in sweep["runs"] if run["folder"] not in own]
    for config in {config.method: config for config in configs}.values():
        alike = [run["folder"] for run in others if run.get("method") == config.method]
        there = _of_method(folder / alike[0]) if alike else {}
        differences += differing_flags(config, dataclasses.asdict(config) | there)
    return differences


def _of_method(run_dir: Path) -> dict[str, object]:
    """What a run's config.json has of OF_METHODS; nothing where there is none that can be read."""
    settings = json_object(run_dir / CONFIG_NAME) or {}
    return {name: settings[name] for name in OF_METHODS if name in settings}


def read_sweep(folder: Path) -> dict:
    """A sweep's study.json; without runs where there is none.

    Raises:
        UserError: it is damaged, or another program's.
    """
    path = folder / SWEEP_NAME
    if not os.path.exists(path):
        return {"runs": []}
    try:
        content = strict_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged; the runs go on without it: remove it") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is no sweep of this project")
    runs = content.get("runs")
    if not (
        isinstance(runs, list)
        and all(isinstance(run, dict) and isinstance(run.get("folder"), str) for run in runs)
        and isinstance(content.get("settings", {}), dict)
    ):
        raise UserError(f"{path} is damaged; the runs go on without it: remove it")
    return content


HEADINGS = {
    "recon": "recon",
    "kl": "KL",
    "tc": "TC",
    "disc_accuracy": "disc. accuracy",
    "penalty": "penalty",
}


def sweep_table(summaries: Sequence[dict]) -> str:
    """A row for each run, then, over the seeds of a setting, mean and standard deviation.

    Settings are in the order of their numbers. The figures are those of the last row of each log:
    means over its last --log_every steps.
    """
    names = [n for n in SHOWN if n != "penalty" or any(n in run["figures"] for run in summaries)]
    rows = [["run", "state", "steps", *(HEADINGS[name] for name in names)]]
    numbers = [name for name in SWEPT if name not in ("method", "seed")]
    methods = [run.get("method") for run in summaries]  # in the order that they were asked for

    def order(run: dict) -> list[float]:
        method = methods.index(run.get("method"))
        return [method, *(run.get(name) or 0 for name in numbers), run["seed"]]

    summaries = sorted(summaries, key=order)
    for run in summaries:
        figures = [_form(name, run["figures"].get(name)) for name in names]
        rows.append([run["folder"], run["state"], f"{run['steps']:,}", *figures])
    rows.append([])
    groups: dict[tuple, list[dict]] = {}
    for run in summaries:
        if run["state"] == "finished":
            setting = tuple(run.get(name) for name in SWEPT if name != "seed")
            groups.setdefault((*setting, run["steps"]), []).append(run)
    for runs in groups.values():
        if len(runs) > 1:
            label = f"{_setting_of(runs[0])}, {len(runs)} seeds"
            figures = [_mean_and_deviation(name, runs) for name in names]
            rows.append([label, "mean +- sd", f"{runs[0]['steps']:,}", *figures])
    failures = [f"{run['folder']}: {run['error']}" for run in summaries if run["error"]]
    explained = ["", "+-: standard deviation over seeds"] if len(rows) > len(summaries) + 2 else []
    return "\n".join([*_aligned(rows), *explained, *failures])


def _setting_of(run: dict) -> str:
    """'beta 1, gamma 6.4', or 'annealed, beta 0, gamma 1000, capacity 25'."""
    numbers = [name for name in SWEPT if name in run and name not in ("method", "seed")]
    named = [] if run["method"] in TOLD_BY_GAMMA else [run["method"]]
    return ", ".join([*named, *(f"{name} {run[name]:g}" for name in numbers)])


def _form(name: str, value: float | None) -> str:
    return "" if value is None else f"{value:{SHOWN[name]}}"


def _mean_and_deviation(name: str, runs: Sequence[dict]) -> str:
    values = [run["figures"].get(name) for run in runs]
    if None in values:  # no discriminator, no estimate
        return ""
    return f"{_form(name, statistics.mean(values))} +- {_form(name, statistics.stdev(values))}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first two columns to the left, the others to the right."""
    full = [row for row in rows if row]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    lines = []
    for row in rows:
        left = [f"{cell:{width}}" for cell, width in zip(row[:2], widths[:2], strict=False)]
        right = [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=False)]
        lines.append("  ".join([*left, *right]).rstrip())
    return lines
