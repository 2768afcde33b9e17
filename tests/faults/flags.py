"""Bad command lines, and the words that each answer must hold: one line, and exit code 2.

A case `flags:SCRIPT:N` is the N-th line of the script's table. {data}, {run} and {out} stand for
the tiny data, a finished run on it and a new folder; the flags come after those of a sound command
line, so that they have the last word.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import evaluate
import train
import visualize
from tests.faults.child import in_batches, in_this_process
from tests.faults.tiny import data_dir, fresh, run_of, train_flags

LONG = "9" * 5000

TRAIN = f"""
--wrong | unrecognized arguments: --wrong
--latent 3 | unrecognized arguments: --latent 3
stray | unrecognized arguments: stray
-x | unrecognized arguments: -x
--latent_dim | expected one argument
--latent_dim ten | --latent_dim & 'ten'
--latent_dim 0 | --latent_dim must be at least 1, not 0
--latent_dim -3 | --latent_dim must be at least 1, not -3
--latent_dim 1.5 | --latent_dim & '1.5'
--latent_dim 1000000000 | GiB to train & --latent_dim 1000000000
--latent_dim 10000000000 | --latent_dim must be at most 1000000000
--latent_dim {LONG} | --latent_dim
--latent_dim 1e3 | --latent_dim & '1e3'
--latent_dim nan | --latent_dim & 'nan'
--latent_dim '' | --latent_dim & ''
--hidden_dim 0 | --hidden_dim must be at least 1, not 0
--hidden_dim 1000000000 | GiB to train & --hidden_dim 1000000000
--hidden_dim x | --hidden_dim & 'x'
--disc_depth 0 | --disc_depth must be at least 1, not 0
--disc_depth 1000000 | --disc_depth must be at most 1000
--disc_depth deep | --disc_depth & 'deep'
--disc_width 0 | --disc_width must be at least 1, not 0
--disc_width 1000000000 | GiB to train & --disc_width 1000000000
--disc_width {LONG} | --disc_width
--beta -1 | --beta must be at least 0, not -1.0
--beta nan | --beta must be a finite number, not nan
--beta inf | --beta must be a finite number, not inf
--beta -inf | --beta
--beta one | --beta & 'one'
--beta 1,5 | --beta & '1,5'
--beta | --beta & expected at least one argument
--gamma -0.5 | --gamma must be at least 0, not -0.5
--gamma nan | --gamma must be a finite number, not nan
--gamma 1e999 | --gamma must be a finite number, not inf
--gamma 1 high | --gamma & 'high'
--gamma 1-5 | --gamma & '1-5'
--gamma {LONG} | --gamma
--method vae | --method must be one of & factorvae & not vae
--method FactorVAE | --method must be one of & not FactorVAE
--method '' | --method
--method betavae --gamma 3 | --gamma must be 0 with --method betavae
--method factorvae --capacity 3 | --capacity is no setting of --method factorvae
--method annealed --stratified | --stratified is no setting of --method annealed
--method annealed --capacity -1 | --capacity must be at least 0
--method annealed --capacity nan | --capacity must be a finite number
--method annealed --capacity_steps 0 | --capacity_steps must be at least 1
--method annealed --capacity_steps x | --capacity_steps & 'x'
--method dipvae1 --dip_ratio -1 | --dip_ratio must be at least 0
--method dipvae2 --dip_ratio inf | --dip_ratio must be a finite number
--batch_size 1 | --method factorvae needs a --batch_size of at least 2
--method btcvae --stratified yes | unrecognized arguments: yes
--dip_ratio 3 | --dip_ratio is no setting of --method factorvae
--capacity_steps 7 | --capacity_steps is no setting of --method factorvae
--preset slow | --preset must be one of fast, not slow
--preset | --preset & expected one argument
--beta_start -1 | --beta_start must be at least 0, not -1.0
--beta_start nan | --beta_start must be a finite number, not nan
--gamma_start inf | --gamma_start must be a finite number, not inf
--gamma_start x | --gamma_start & 'x'
--latent_scale 0 | --latent_scale must be greater than 0, not 0.0
--latent_scale 1e9 | --latent_scale must be at most 100
--first_latents -1 | --first_latents must be at least 0, not -1
--first_latents 11 | --first_latents 11 is more than --latent_dim 3
--first_latents 2 --add_at 5 6 | --first_latents 2 and 2 more by --add_at are more than
--first_latents 1 --add_at 9 --wake_at 9 | --add_at 9 is not before --wake_at 9
--add_at 5 | --add_at needs --first_latents
--add_at soon | --add_at & 'soon'
--wake_at -1 | --wake_at must be at least 0, not -1
--wake_at soon | --wake_at & 'soon'
--turn_at -1 | --turn_at must be at least 0, not -1
--anneal_from -1 | --anneal_from must be at least 0, not -1
--anneal_from 5 --anneal_until 3 | --anneal_until 3 is before --anneal_from 5
--anneal_until 1.5 | --anneal_until & '1.5'
--beta_start 3 --anneal_until 99999999999999999999 | --anneal_until must be at most 9007199254740992
--anneal_from 99999999999999999999 | --anneal_from must be at most 9007199254740992
--method annealed --capacity_steps 99999999999999999999 | --capacity_steps must be at most
--batch_size 0 | --batch_size must be at least 1, not 0
--batch_size -64 | --batch_size must be at least 1, not -64
--batch_size 25 | --batch_size 25 exceeds the 24 images
--batch_size 1000000000000 | --batch_size 1000000000000 exceeds the 24 images
--batch_size {LONG} | --batch_size
--batch_size many | --batch_size & 'many'
--num_epochs 0 | --num_epochs must be at least 1, not 0
--num_epochs 99999999999999999999 | --num_epochs must be at most 9007199254740992
--max_steps 99999999999999999999 | --max_steps must be at most 9007199254740992
--num_epochs 0.5 | --num_epochs & '0.5'
--max_steps 0 | --max_steps must be at least 1, not 0
--max_steps -1 | --max_steps must be at least 1, not -1
--max_steps 1e5 | --max_steps & '1e5'
--max_steps {LONG} | --max_steps
--lr 0 | --lr must be greater than 0, not 0.0
--lr -1e-4 | --lr
--lr -0.1 | --lr must be greater than 0, not -0.1
--lr nan | --lr must be a finite number, not nan
--lr inf | --lr must be a finite number, not inf
--lr 1e-4 1e-3 | unrecognized arguments: 1e-3
--lr fast | --lr & 'fast'
--lr_disc 0 | --lr_disc must be greater than 0, not 0.0
--lr_disc -inf | --lr_disc
--lr_disc x | --lr_disc & 'x'
--seed -1 | --seed must be at least 0, not -1
--seed 1.5 | --seed & '1.5'
--seed 5-2 | --seed & invalid range: '5-2'
--seed 0-99999999 | --seed & invalid range: '0-99999999'
--seed 0,1 | --seed & '0,1'
--seed 1- | --seed & '1-'
--seed | --seed & expected at least one argument
--seed 9223372036854775808 | --seed must be at most 9223372036854775807
--seed {LONG} | --seed
--seed {LONG}-{LONG} | --seed
--seed 0-9999 --gamma 1 2 | these flags make a sweep of 20,000 runs; 10,000 are the most
--device tpu | --device must be auto, cpu, cuda or cuda:N, not tpu
--device cpu: | --device must be auto, cpu, cuda or cuda:N, not cpu:
--device cuda:x | --device & cuda:x
--device cuda:-1 | --device & cuda:-1
--device cuda:99 | --device cuda:99
--device cuda:{LONG} | --device
--device '' | --device
--precision fp8 | --precision must be one of fp32, bf16, not fp8
--precision | --precision & expected one argument
--compile yes | unrecognized arguments: yes
--threads -1 | --threads must be at least 0, not -1
--threads 100000 | --threads must be at most 1024
--threads two | --threads & 'two'
--jobs -2 | --jobs must be at least 0, not -2
--jobs 99999 | --jobs must be at most 1024
--jobs all | --jobs & 'all'
--checkpoint_every 0 | --checkpoint_every must be at least 1, not 0
--checkpoint_every x | --checkpoint_every & 'x'
--log_every 0 | --log_every must be at least 1, not 0
--log_every -5 | --log_every must be at least 1, not -5
--image_size 48 | --image_size must be one of 32, 64, 128, 256, not 48
--image_size 0 | --image_size must be one of 32, 64, 128, 256
--image_size big | --image_size & 'big'
--crop 0 | --crop must be at least 1, not 0
--crop -1 | --crop must be at least 1
--crop 1000 | no square of 1000 & --crop 32 or less
--crop {LONG} | --crop
--split train | has no split
--dataset mnist | unknown dataset 'mnist'; known are dsprites
--dataset '' | --dataset must not be empty
--dataset DSPRITES | unknown dataset 'DSPRITES'
--dataset folder: | unknown dataset 'folder:'
--dataset folder | unknown dataset 'folder'
--dataset npz: | unknown dataset 'npz:'
--dataset folder:{{data}}/nothing | {{data}}/nothing is not there, or is no folder
--dataset folder:{{data}}/images/00.png | 00.png is not there, or is no folder
--dataset folder:{{data}}/folder | holds no images
--dataset folder:~nosuchuser/x | is not there, or is no folder
--dataset folder:{"x" * 5000} | x & File name too long
--dataset npz:{{data}}/nothing.npz | nothing.npz is not there, or is no file
--dataset npz:{{data}} | is not there, or is no file
--dataset npz:{{data}}/images/00.png --image_size 32 | 00.png & expected an npz
--dataset npz:{"x" * 5000} | x & File name too long
--dataset dsprites --image_size 32 --data_dir {{out}} | has no grayscale
--dataset rooms --data_dir {{out}} | rooms has no grayscale
--dataset mpi3d_toy --data_dir {{out}} | has no grayscale
--dataset cars3d --data_dir {{out}} | has no grayscale
--dataset chairs --data_dir {{out}} | rendered_chairs & chairs/
--dataset celeba --data_dir {{out}} | list_attr_celeba.txt & celeba
--dataset celeba --data_dir {{out}} --split some | no split 'some'
--dataset mpi3d_fake | unknown dataset 'mpi3d_fake'
--dataset shapes3d:x | unknown dataset 'shapes3d:x'
--data_dir '' | --data_dir must not be empty
--data_dir /dev/null | /dev/null
--data_dir {{data}}/images/00.png | 00.png
--data_dir {"y" * 5000} | File name too long
--output_dir '' | --output_dir must not be empty
--output_dir /dev/null | /dev/null
--output_dir /dev/null/run | /dev/null/run
--output_dir {{data}}/images/00.png | 00.png
--output_dir {{data}}/images/00.png/run | 00.png/run
--output_dir {"z" * 5000} | File name too long
--output_dir /proc/nothing/run | cannot write to /proc/nothing/run
--output_dir {{run}} --gamma 1 | holds another run & --gamma is 6.4 there and 1.0 here
--output_dir {{run}} --latent_dim 4 | holds another run & --latent_dim is 3 there and 4 here
--output_dir {{run}} --seed 5 | holds another run & --seed is 0 there and 5 here
--output_dir {{run}} --seed 5 6 | holds a run; a sweep needs a folder of its own
--output_dir {{run}} --log_every 5 | holds another run & --log_every is 2 there and 5 here
--output_dir {{run}} --batch_size 8 | --batch_size is 4 there and 8 here
--output_dir {{run}} --method btcvae | --method is factorvae there and btcvae here
--output_dir {{run}} --lr 1 --lr_disc 1 | --lr is 0.0001 there and 1.0 here; --lr_disc
--gamma 1e39 | not finite & --lr_disc & --gamma
--beta 1e39 | not finite & --beta
--lr 1e30 | not finite & --lr & --overwrite
--lr_disc 1e39 --max_steps 6 | not finite & --lr_disc
"""

EVALUATE = f"""
--wrong | unrecognized arguments: --wrong
stray | unrecognized arguments: stray
--model_path | --model_path & expected at least one argument
--model_path '' | --model_path must not be empty
--model_path nowhere.pt | no checkpoint at nowhere.pt
--model_path {{data}} | no checkpoint at
--model_path {{data}}/images/00.png | 00.png is damaged, or is no checkpoint
--model_path {{run}}/stats.csv | stats.csv is damaged, or is no checkpoint
--model_path /dev/null | no checkpoint at /dev/null
--model_path '{{data}}/none*' | no checkpoint matches
--model_path '[' | no checkpoint
--model_path {{run}} nowhere.pt | no checkpoint at nowhere.pt
--model_path {"m" * 5000} | File name too long
--dataset mnist | unknown dataset 'mnist'
--dataset '' | --dataset must not be empty
--dataset folder:{{data}}/nothing | is not there, or is no folder
--dataset npz:/dev/zero | is not there, or is no file
--data_dir '' | --data_dir must not be empty
--metrics | --metrics & expected at least one argument
--metrics fid | unknown metric fid; known are
--metrics mig fid | unknown metric fid
--metrics '' | --metrics must not be empty
--metrics udr | udr of & compares several checkpoints
--metrics MIG | unknown metric MIG
--num_batches 0 | --num_batches must be at least 1, not 0
--num_batches x | --num_batches & 'x'
--num_batches {LONG} | --num_batches
--batch_size 0 | --batch_size must be at least 1, not 0
--batch_size -3 | --batch_size must be at least 1, not -3
--num_batches 1 --batch_size 1 | must be at least 4 points, not 1
--protocol mine | --protocol must be one of dlib, paper, not mine
--dci_estimator tree | --dci_estimator must be one of gbt
--repeats 0 | --repeats must be at least 1, not 0
--repeats 1000000000 | --repeats must be at most 1000
--repeats 1.5 | --repeats & '1.5'
--seed -1 | --seed must be at least 0, not -1
--seed 0 1 | unrecognized arguments: 1
--seed 0-9 | --seed & '0-9'
--seed {LONG} | --seed
--output '' | --output must not be empty
--output {{data}} | cannot be written: Is a directory
--output {{out}}/no/such/x.json | cannot be written: No such file
--output {{run}}/stats.csv/x.json | cannot be written: Not a directory
--csv '' | --csv must not be empty
--csv {{data}} | cannot be written: Is a directory
--csv {{out}}/no/such/x.csv | cannot be written: No such file
--csv {"c" * 5000} | File name too long
--markdown yes | unrecognized arguments: yes
--device tpu | --device must be auto, cpu, cuda or cuda:N, not tpu
--device cuda:99 | --device cuda:99
--threads -1 | --threads must be at least 0, not -1
--threads 9999 | --threads must be at most 1024
"""

VISUALIZE = f"""
--wrong | unrecognized arguments: --wrong
stray | unrecognized arguments: stray
--model_path | --model_path & expected one argument
--model_path '' | --model_path must not be empty
--model_path nowhere.pt | no checkpoint at nowhere.pt
--model_path {{data}}/images/00.png | 00.png is damaged, or is no checkpoint
--model_path {{data}} | no checkpoint at
--model_path {{run}} {{run}} | unrecognized arguments
--model_path {"m" * 5000} | File name too long
--dataset mnist | unknown dataset 'mnist'
--dataset folder:{{data}}/nothing | is not there, or is no folder
--output_dir '' | --output_dir must not be empty
--output_dir {{data}}/images/00.png | --output_dir & 00.png
--output_dir {{data}}/images/00.png/x | --output_dir & 00.png
--output_dir /dev/null/x | --output_dir /dev/null/x
--output_dir /proc/nothing | --output_dir /proc/nothing
--output_dir {"r" * 5000} | File name too long
--format jpg | --format must be one of png, pdf, svg, not jpg
--format '' | --format
--num_images 0 | --num_images must be at least 1, not 0
--num_images 33 | --num_images 33
--num_images {LONG} | --num_images
--num_images few | --num_images & 'few'
--image_index -1 | --image_index
--image_index 24 | --image_index 24
--image_index x | --image_index & 'x'
--image_index | --image_index & expected at least one argument
--image_index {" 0" * 33} | 33 images
--seed -1 | --seed must be at least 0, not -1
--seed 0-1 | --seed & '0-1'
--device tpu | --device must be auto, cpu, cuda or cuda:N, not tpu
--device cuda:99 | --device cuda:99
--threads 99999 | --threads must be at most 1024
"""

TABLES = {"train": TRAIN, "evaluate": EVALUATE, "visualize": VISUALIZE}
SCRIPTS: dict[str, Callable] = {
    "train": train.main,
    "evaluate": evaluate.main,
    "visualize": visualize.main,
}
LINES = {script: table.strip().splitlines() for script, table in TABLES.items()}


def cases(seed: int) -> Iterator[str]:
    """All of them, whatever the seed."""
    for script, lines in LINES.items():
        yield from (f"flags:{script}:{number}" for number in range(len(lines)))


def run(cases: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Each case and what breaks the promise, in one line, if anything."""
    return in_batches(cases, prepare, run_here)


def prepare(cases: Sequence[str]) -> None:
    """Make the data and the run that the command lines name."""
    run_of(4)


def run_here(case: str) -> str | None:
    """What breaks the promise in one case, in this process."""
    script, argv, words = line_of(case)
    ended = in_this_process(lambda: SCRIPTS[script](argv))
    missing = [word for word in words if word.strip("'") not in ended.err]
    if missing and ended.fault(codes=(2,)) is None:
        return f"no word of {missing[0]!r} in: {ended.err.strip().splitlines()[-1]}"
    return ended.fault(codes=(2,))


def line_of(case: str) -> tuple[str, list[str], list[str]]:
    """A case's script, its command line, and the words."""
    _, script, number = case.split(":")
    line, _, words = LINES[script][int(number)].rpartition(" | ")
    out = fresh("flags")
    places = {"data": data_dir(), "run": run_of(4), "out": out}
    flags = shlex.split(line.format(**places))
    return script, [*_sound(script, out), *flags], words.format(**places).split(" & ")


def _sound(script: str, out: Path) -> list[str]:
    """A command line that is right."""
    if script == "train":
        return train_flags(out / "run", 2)
    flags = ["--model_path", str(run_of(4)), "--threads", "1", "--device", "cpu"]
    where = {"evaluate": ["--metrics", "mig"], "visualize": ["--output_dir", str(out / "results")]}
    return [*where[script], *flags]
