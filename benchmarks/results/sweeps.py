"""What is trained: every profile is a list of sweeps, the most important first."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factorvae.command_line import parse_sweep
from factorvae.config import RECIPES, TrainConfig, recipe_flags
from factorvae.training.run_folder import run_name

SEEDS = "--seed 0-4"
UNSEEN = "--seed 16-20 26-30"  # on which no recipe was chosen
TWO_CORES = "--jobs 2 --threads 1"


@dataclass(frozen=True)
class Sweep:
    """Runs of one kind.

    flags: of train.py, without --output_dir and --data_dir. ships: the name in pretrained/ of its
    run with the highest FactorVAE score, to two digits, and of several of the highest MIG.
    on_the_way: steps at which its runs are measured before their end. past: an earlier recipe or an
    experiment, which has a section of its own and is in no figure.
    """

    name: str
    title: str
    flags: str
    ships: str = ""
    on_the_way: tuple[int, ...] = ()
    past: bool = False


def paper() -> list[Sweep]:
    """The most important first: what the README compares, and the paper's best gamma."""
    length = f"--max_steps 300000 --log_every 1000 {SEEDS}"
    factorvae, betavae = "FactorVAE, the paper's recipe", "beta-VAE, the paper's recipe"
    return [
        Sweep("factorvae", factorvae, f"--gamma 6.4 {length}"),
        Sweep("betavae", betavae, f"--beta 4 --gamma 0 {length}"),
        Sweep("factorvae_35", factorvae, f"--gamma 35 {length}"),
        Sweep("factorvae_others", factorvae, f"--gamma 10 20 40 {length}"),
        Sweep("betavae_others", betavae, f"--beta 1 --gamma 0 {length}"),
    ]


def methods(length: str) -> list[Sweep]:
    """Every method at its default strength and at another."""
    strengths = [
        ("factorvae", "FactorVAE", "--gamma 6.4 35"),
        ("betavae", "beta-VAE", "--beta 4 8"),
        ("annealed_10", "AnnealedVAE, 10 nats", "--capacity 10"),
        ("annealed_25", "AnnealedVAE, 25 nats", "--capacity 25"),
        ("dipvae1", "DIP-VAE-I", "--gamma 2 10"),
        ("dipvae2", "DIP-VAE-II", "--gamma 2 10"),
        ("btcvae", "beta-TCVAE", "--gamma 3 5"),
    ]
    return [
        Sweep(name, title, f"--method {name.partition('_')[0]} {flags} {length}")
        for name, title, flags in strengths
    ]


FAST = f"--preset fast --precision bf16 {TWO_CORES}"
RATES = "--disc_width 300 --lr 0.0006 --lr_disc 0.0005"
ONE_BY_ONE = f"{RATES} --latent_scale 0.1 --wake_at 2000"
STARTED = "--beta_start 4 --gamma_start 50 --anneal_from 2000 --anneal_until 10000"
TURNED = (
    f"{RATES} --latent_scale 0.1 {STARTED} --turn_at 2500 5000 --wake_at 5000 8000 "
    f"--max_steps 20000 --precision bf16 {TWO_CORES}"
)
FALLING = f"{ONE_BY_ONE} --beta_start 4 --anneal_from 2000 --anneal_until 10000 --max_steps 20000"


def explored() -> list[Sweep]:
    """Experiments on the way to the recipe, and with it; docs/results.md says which on a GPU."""
    shared = f"--log_every 500 {SEEDS}"
    longer = f"{ONE_BY_ONE} --max_steps 20000 {shared}"
    rising = "--gamma 35 --gamma_start 6.4 --anneal_from 3000 --anneal_until 12000"
    betavae = f"{FALLING} --log_every 500 --precision bf16 {TWO_CORES} --beta 4 --gamma 0"
    unturned = f"{TURNED} --turn_at 0 --gamma 6.4 --seed 0"
    added = f"{FAST} --wake_at 5000 8000 --gamma 6.4 --seed 14-15"
    noisy = "--dataset noisy_dsprites --preset fast --precision bf16 --threads 2 --seed 0"
    float32 = f"--preset fast {TWO_CORES} --gamma 6.4 --seed 16"
    unstandardized, glorot = "--no-disc_standardize", "--latent_scale 1"
    later_turn = "--turn_at 1500 2500 5000 15000"
    sooner = f"--anneal_until 5000 {later_turn}"
    same, seen = "--gamma 6.4 --seed 16-17", "--gamma 6.4 --seed 22 24"
    sweeps = [
        Sweep(
            "without_standardize",
            "FactorVAE, fast, codes as they are",
            f"{FAST} {unstandardized} {same}",
        ),
        Sweep("without_turn", "FactorVAE, fast, no turns", f"{FAST} --turn_at 0 {same}"),
        Sweep(
            "without_gamma",
            "FactorVAE, fast, gamma 6.4 from the start",
            f"{FAST} --gamma_start 0 {same}",
        ),
        Sweep(
            "without_scale",
            "FactorVAE, fast, first weights of Glorot's size",
            f"{FAST} {glorot} {same}",
        ),
        Sweep(
            "unscaled",
            "FactorVAE, fast, codes as they are and first weights of Glorot's size",
            f"{FAST} {unstandardized} {later_turn} {glorot} {seen}",
        ),
        Sweep("sooner", "FactorVAE, weights falling until 5,000", f"{FAST} {sooner} {seen}"),
        Sweep(
            "sooner_unscaled",
            "the same, codes as they are and first weights of Glorot's size",
            f"{FAST} {unstandardized} {sooner} {glorot} {seen}",
        ),
        Sweep(
            "sooner_glorot",
            "the same, first weights of Glorot's size",
            f"{FAST} {sooner} {glorot} --gamma 6.4 --seed 31-33",
        ),
        Sweep(
            "sooner_rooms",
            "the same, first weights of Glorot's size",
            f"--dataset rooms {FAST} {sooner} {glorot} --seed 0",
        ),
        Sweep("added", "FactorVAE, fast but for the last two wakings", added),
        Sweep("fast_fp32", "FactorVAE, fast, in float32", float32),
        Sweep("noisy_fast", "FactorVAE, fast", noisy),
        Sweep("unturned", "FactorVAE, turned but for the turns", unturned),
        Sweep("falling", "FactorVAE, falling", f"{FALLING} {shared} --gamma 6.4"),
        Sweep("falling_betavae", "beta-VAE, falling", f"{betavae} --seed 0-1"),
        Sweep("constant", "FactorVAE, woken once, longer", f"{longer} --gamma 6.4"),
        Sweep("gamma20", "FactorVAE, woken once, longer", f"{longer} --gamma 20"),
        Sweep("rising35", "FactorVAE, woken once, longer, gamma from 6.4", f"{longer} {rising}"),
    ]
    return [dataclasses.replace(sweep, past=True) for sweep in sweeps]


ON_THE_WAY = (1000, 2500, 5000, 10000)
ON_THE_LONGER_WAY = (2500, 5000, 10000, 15000)
ON_THE_LONGEST_WAY = (20000, 50000, 75000, 100000, 150000, 200000, 250000)
WOKEN = f"{ONE_BY_ONE} --max_steps 8000 --precision bf16 {TWO_CORES}"
TWICE = "--anneal_until 8000 --wake_at 2000 8000 --max_steps 14000"
CONSTANT = f"{RATES} --max_steps 5000 {TWO_CORES}"
ANNEALED = "--beta_start 100 --gamma_start 50 --anneal_from 300 --anneal_until 4000"
SHORT = f"--max_steps 20000 --precision bf16 {TWO_CORES}"
LONG = f"--max_steps 300000 --precision bf16 {TWO_CORES}"
PROFILES: dict[str, list[Sweep]] = {
    "laptop": [
        Sweep(
            "fast",
            "FactorVAE, fast",
            f"{FAST} --gamma 6.4 {UNSEEN}",
            "dsprites_factorvae",
            on_the_way=ON_THE_LONGER_WAY,
        ),
        Sweep(
            "fast_betavae",
            "beta-VAE, fast",
            f"{FAST} --beta 4 --gamma 0 {UNSEEN}",
            "dsprites_betavae",
            on_the_way=ON_THE_LONGER_WAY,
        ),
        Sweep("fast_gammas", "FactorVAE, fast", f"{FAST} --gamma 20 35 --seed 16-17"),
        Sweep("fast_beta1", "VAE, fast", f"{FAST} --beta 1 --gamma 0 --seed 16-20"),
        Sweep(
            "turned",
            "FactorVAE, turned, the seeds it was chosen on",
            f"{TURNED} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
            past=True,
        ),
        Sweep(
            "turned_betavae",
            "beta-VAE, turned",
            f"{TURNED} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
            past=True,
        ),
        Sweep(
            "turned_others",
            "FactorVAE, turned, other seeds",
            f"{TURNED} --gamma 6.4 --seed 5-6",
            past=True,
        ),
        Sweep(
            "woken",
            "FactorVAE, woken once",
            f"{WOKEN} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "woken_betavae",
            "beta-VAE, woken once",
            f"{WOKEN} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "twice",
            "FactorVAE, falling sooner, woken twice",
            f"{FALLING} --precision bf16 {TWO_CORES} --gamma 6.4 {TWICE} {SEEDS}",
            past=True,
        ),
        Sweep(
            "factorvae",
            "FactorVAE, all latents at once",
            f"{CONSTANT} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "betavae",
            "beta-VAE, all latents at once",
            f"{CONSTANT} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "rooms_fast",
            "FactorVAE, fast",
            f"--dataset rooms {FAST} --seed 0-2",
            "rooms_factorvae",
        ),
        Sweep(
            "rooms_fast_betavae",
            "beta-VAE, fast",
            f"--dataset rooms {FAST} --beta 4 --gamma 0 --seed 0-2",
        ),
        Sweep(
            "rooms_fast_beta1", "VAE, fast", f"--dataset rooms {FAST} --beta 1 --gamma 0 --seed 0"
        ),
        Sweep("rooms", "FactorVAE, all latents at once", f"--dataset rooms {CONSTANT} --seed 0"),
        Sweep(
            "annealed",
            "FactorVAE, annealed",
            f"{CONSTANT} --gamma 6.4 {ANNEALED} --seed 0-1",
            "dsprites_annealed",
            past=True,
        ),
        Sweep(
            "factorvae_short",
            "FactorVAE, the paper's rates",
            f"{SHORT} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
        ),
        Sweep(
            "betavae_short",
            "beta-VAE, the paper's rates",
            f"{SHORT} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
        ),
    ],
    "long": [
        Sweep(
            "factorvae",
            "FactorVAE, the paper's recipe, on a CPU",
            f"{LONG} --gamma 6.4 --seed 0",
            on_the_way=ON_THE_LONGEST_WAY,
        ),
        Sweep(
            "betavae",
            "beta-VAE, the paper's recipe, on a CPU",
            f"{LONG} --beta 4 --gamma 0 --seed 0",
            on_the_way=ON_THE_LONGEST_WAY,
        ),
    ],
    "explored": explored(),
    "paper": paper(),
    "methods": methods(f"--max_steps 300000 {SEEDS}"),
}


def all_sweeps() -> Iterator[tuple[str, Sweep]]:
    """Every sweep with the name of its profile, in their order."""
    for profile, sweeps in PROFILES.items():
        for sweep in sweeps:
            yield profile, sweep


def title_of(profile: str, name: str) -> str:
    """A sweep's title, or its name where the profile has it no more."""
    return next((s.title for p, s in all_sweeps() if (p, s.name) == (profile, name)), name)


def runs_of(sweep: Sweep, folder: Path) -> list[Path]:
    """The folders of a sweep's runs, whether they are there or not."""
    configs = parse_sweep(TrainConfig, "", sweep.flags.split())
    return [folder / run_name([config]) for config in configs]


def length_of(sweep: Sweep) -> int:
    """Steps of each of its runs."""
    return parse_sweep(TrainConfig, "", sweep.flags.split())[0].max_steps


def stops_of(sweep: Sweep) -> list[int]:
    """Steps at which its training stops: to be measured on the way, and at the end."""
    end = length_of(sweep)
    return [*(steps for steps in sorted(sweep.on_the_way) if steps < end), end]


def spelled_flags(sweep: Sweep, seed: object) -> str:
    """Those of one of its runs, without presets; a flag given twice counts as it is given last."""
    flags = re.sub(r"--seed( \d\S*)+", f"--seed {seed}", sweep.flags.replace(" --jobs 2", ""))
    for name in RECIPES:
        flags = flags.replace(f"--preset {name}", " ".join(recipe_flags(name)))
    return flags
