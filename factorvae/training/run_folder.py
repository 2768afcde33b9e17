"""A run's folder: where it is, and whether its run can be gone on with."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from factorvae.checkpoint import describe_dataset, load_checkpoint
from factorvae.config import TrainConfig, as_given, flag_of, unknown_settings
from factorvae.datasets import Dataset
from factorvae.errors import UserError
from factorvae.files import (
    CHECKPOINT_NAME,
    CONFIG_NAME,
    LOG_NAME,
    METRICS_NAME,
    RUNS,
    STATS_NAME,
    json_object,
    remove_left_by_killed,
    whole_file,
    written_to,
)
from factorvae.methods import METHODS, TOLD_BY_GAMMA, idle_settings, settings_of_others
from factorvae.run_log import is_log

SWEPT = [f.name for f in dataclasses.fields(TrainConfig) if f.metadata["several"]]


def folder_of(configs: Sequence[TrainConfig]) -> Path:
    """Of a run or a sweep: --output_dir, or runs/ and its name."""
    if configs[0].output_dir is not None:
        return Path(configs[0].output_dir)
    return Path(RUNS) / run_name(configs)


def run_name(configs: Sequence[TrainConfig]) -> str:
    """Of a run or a sweep: dsprites_beta1_gamma6.4_seed0, dsprites_btcvae_beta1_gamma2+5_seed0-9.

    The capacity is named where it is a setting of the method.
    """
    methods = list(dict.fromkeys(c.method for c in configs))
    betas = list(dict.fromkeys(c.beta for c in configs))
    gammas = list(dict.fromkeys(c.gamma for c in configs))
    seeds = list(dict.fromkeys(c.seed for c in configs))
    with_capacity = [c for c in configs if "capacity" in METHODS[c.method].settings]
    capacities = list(dict.fromkeys(c.capacity for c in with_capacity))

    parts = [configs[0].dataset.replace(":", "_").replace("/", "_")]
    if not TOLD_BY_GAMMA.issuperset(methods):
        parts.append("+".join(methods))
    for name, values in (("beta", betas), ("gamma", gammas), ("capacity", capacities)):
        if values:
            parts.append(name + "+".join(map(_shortest, values)))
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        parts.append(f"seed{seeds[0]}-{seeds[-1]}")
    else:
        parts.append("seed" + "+".join(map(str, seeds)))
    return "_".join(parts)


def swept_settings(method: str) -> list[str]:
    """The fields in which runs of a sweep differ, but those of other methods."""
    others = settings_of_others(method)
    return [name for name in SWEPT if name not in others]


def _shortest(value: float) -> str:
    """4 for 4.0, and all digits where they are needed to tell runs apart."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def earlier_checkpoint(run_dir: Path, config: TrainConfig, until: int) -> dict | None:
    """The checkpoint to go on from; None where there is none, or --overwrite discards it.

    Raises:
        UserError: the run there has other settings, or its checkpoint is damaged, or without one
            there are files that no run has written.
    """
    if config.overwrite:
        return None
    # os.path: a name too long to exist is for locked_folder to tell of
    if not os.path.exists(run_dir / CHECKPOINT_NAME):
        _check_no_others_files(run_dir)
        return None
    earlier = load_checkpoint(run_dir, until)
    differences = differing_flags(config, earlier["config"])
    if differences:
        differences = [*differing_preset(config, earlier["config"]), *differences]
        raise UserError(f"{run_dir} holds another run: {'; '.join(differences)}. {WAYS_OUT}")
    return earlier


def _check_no_others_files(run_dir: Path) -> None:
    """Raise UserError where a run would replace what none has written, as in a folder of code."""
    for name, is_of_a_run in ((CONFIG_NAME, _is_config), (STATS_NAME, is_log)):
        path = run_dir / name
        if os.path.isfile(path) and path.stat().st_size and not is_of_a_run(path):
            raise UserError(f"{path} is of no run, which would replace it: --output_dir")


def _is_config(path: Path) -> bool:
    content = json_object(path)
    return content is not None and {"dataset", "latent_dim", "seed"} <= content.keys()


def differing_preset(config: TrainConfig, earlier: dict[str, object]) -> list[str]:
    """Where many settings differ, that may be why."""
    there = earlier.get("preset")
    if there == config.preset:
        return []
    return [_told("--preset", there, config.preset)]


def differing_flags(config: TrainConfig, earlier: dict[str, object]) -> list[str]:
    """Of earlier settings, those that a run could only go on under if they were the config's."""
    differences = []
    idle = idle_settings(config.method)
    for field in dataclasses.fields(config):
        there = earlier.get(field.name, field.default)
        here = getattr(config, field.name)
        if isinstance(there, list):  # JSON knows no tuples
            there = tuple(there)
        if field.metadata["resume"] == "same" and there != here and field.name not in idle:
            differences.append(_told(flag_of(field), there, here))
    return differences + [
        f"--{name} is {as_given(value)} there and no setting of this version"
        for name, value in unknown_settings(earlier).items()
    ]


def _told(flag: str, there: object, here: object) -> str:
    return f"{flag} is {as_given(there)} there and {as_given(here)} here"


def check_same_data(run_dir: Path, earlier: dict, dataset: Dataset) -> None:
    """Raise UserError where the earlier run saw other data under the same name."""
    now = describe_dataset(dataset, earlier["dataset"].get("options", {}))
    there = earlier["dataset"]
    differences = [
        f"{key} is {there[key]} there and {here} here"
        for key, here in now.items()
        if there.get(key, here) != here
    ]
    if differences:
        raise UserError(
            f"{run_dir} holds a run on other data: {'; '.join(differences)}. {WAYS_OUT}"
        )


WAYS_OUT = "Begin anew with --overwrite, or elsewhere with --output_dir"


def make_run_dir(run_dir: Path, config: TrainConfig) -> None:
    """Make the folder and write config.json; with --overwrite, remove an earlier run's files.

    Raises:
        UserError: it cannot be written to.
    """
    with written_to(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        if config.overwrite:
            for name in (CHECKPOINT_NAME, STATS_NAME, LOG_NAME, METRICS_NAME):
                (run_dir / name).unlink(missing_ok=True)
        for name in (CHECKPOINT_NAME, STATS_NAME, CONFIG_NAME):
            remove_left_by_killed(run_dir / name)
        settings = json.dumps(dataclasses.asdict(config), indent=2)
        with whole_file(run_dir / CONFIG_NAME) as file:
            file.write(f"{settings}\n".encode())
