"""One process, and two of torchrun's: what they exchange, and a run that they share."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import train
from factorvae.checkpoint import load_checkpoint
from factorvae.command_line import parse
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset, load_dataset
from factorvae.datasets.table import Pixels
from factorvae.device import exact_float32
from factorvae.errors import UserError
from factorvae.objective import permute_dims
from factorvae.run_log import read_log
from factorvae.training.distributed import ALONE, World, join_world
from factorvae.training.trainer import Trainer
from tests.helpers import run_main, same_state

SMALL = "--hidden_dim 16 --disc_depth 1 --disc_width 16 --batch_size 8 --threads 1".split()
SMALL += "--device cpu --log_every 5 --max_steps 20 --lr 1e-3 --wake_at 14".split()
ON_CARD = TrainConfig(hidden_dim=16, disc_depth=1, disc_width=16, batch_size=8, lr=1e-3)
# Asked for when a test is about to run: a process must not touch CUDA before it forks.
needs_cuda = pytest.mark.skipif("not torch.cuda.is_available()", reason="no CUDA device")
OF_ALL_CODES = "--disc_standardize --first_latents 2 --add_at 6".split()
COMMANDS = {  # folders are relative: each process has its own
    "whole": ["--output_dir", "whole"],
    "begun alone": ["--output_dir", "begun_alone"],
    "begun together": ["--output_dir", "begun_together", "--max_steps", "10"],
    "finished": ["--output_dir", "whole"],
    "of all codes": ["--output_dir", "of_all_codes", *OF_ALL_CODES],
    "not to be split": ["--output_dir", "split", "--batch_size", "7"],
    "stopped": ["--output_dir", "stopped", *"--max_steps 1000000 --log_every 1000000".split()],
}


def codes_of(rank):
    """This process's part of the codes [8, 3] of both."""
    return torch.arange(24.0).reshape(8, 3)[World(rank, 2).shard(8)]


def exchanges(world, folder):
    """What this process gets from the other, as plain values."""
    rank = world.rank
    calls = []

    def fail_in(failing):
        def make():
            calls.append(failing)
            if rank in failing:
                raise UserError(f"what is wrong in {rank}")
            return f"made in {rank}"

        return make

    def raised(call, make):
        try:
            call(make)
        except UserError as error:
            return str(error)
        return None

    told = {
        "world": [world.rank, world.size, world.local_rank, world.restarts, world.alone],
        "gathered": world.all_gather(["from", rank]),
        "together": world.run_everywhere(fail_in(())),
        "together, fault in 1": raised(world.run_everywhere, fail_in((1,))),
        "together, fault in both": raised(world.run_everywhere, fail_in((0, 1))),
    }
    calls.clear()
    told["from first"] = world.broadcast_from_rank0(fail_in((1,)))
    told["from first, fault in 0"] = raised(world.broadcast_from_rank0, fail_in((0,)))
    told["calls of from first"] = len(calls)

    with world.local_main_first():
        told["found prepared"] = (folder / "prepared").exists()
        if rank == 0:
            time.sleep(0.3)
            (folder / "prepared").touch()

    values = torch.tensor([rank, 1.0 - rank, 5.0])
    told["average"], told["least"] = (
        world.all_reduce_mean(values).tolist(),
        world.all_reduce_min(values).tolist(),
    )
    told["values"] = values.tolist()
    told["concatenated"] = world.all_gather_rows(codes_of(rank)).tolist()
    told["of columns"] = world.all_gather_rows(codes_of(rank).t()).tolist()  # not contiguous
    whole = permute_dims(world.all_gather_rows(codes_of(rank)), torch.Generator().manual_seed(0))
    told["permuted"] = whole[world.shard(8)].tolist()
    return told


def steps_on_card(world, dataset):
    """The state of a training after a few steps, in float32 proper, on the first CUDA device."""
    device = torch.device("cuda", 0)
    with exact_float32():
        trainer = Trainer(ON_CARD, dataset, device, world.with_group_for(device, "gloo"))
        trainer.advance(4)
        trainer.wait()
    return trainer.state_dict()


def noise():
    """64 images that every process draws alike."""
    levels = np.random.default_rng(0).integers(0, 256, (64, 1, 64, 64), dtype=np.uint8)
    return Dataset("noise", "made", Pixels(levels))


def train_on_one_card(world, folder):
    torch.save(steps_on_card(world, noise()), folder / f"on_card{world.rank}.pt")


def work(folder, data):
    """What each of the two processes does."""
    with join_world() as world:
        told = exchanges(world, folder)
        if torch.cuda.is_available():
            train_on_one_card(world, folder)
    os.chdir(folder / f"rank{world.rank}")
    told["codes"], told["outputs"] = {}, {}
    for number, (name, flags) in enumerate(COMMANDS.items(), start=1):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)  # each meets the other anew
        if (name, world.rank) == ("stopped", 1):
            threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        told["codes"][name], *told["outputs"][name] = run_main(train.main, *data, *SMALL, *flags)
    (folder / f"told{world.rank}.json").write_text(json.dumps(told))


def launch(folder, data):
    """Two processes with torchrun's agent and environment, as forks of this one.

    Where there is CUDA they are not: an import may have touched it, and no fork can use it then.
    """
    import torch._dynamo  # now, and not by each for itself: torch.optim needs it
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with open(folder / "output", "w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    settings = dict(min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="two", max_restarts=0)
    settings |= dict(rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    settings |= dict(start_method="spawn" if torch.cuda.is_available() else "fork")
    elastic_launch(LaunchConfig(**settings), work)(folder, data)


def train_alone(data, run_dir, *flags):
    assert run_main(train.main, *data, *SMALL, "--output_dir", run_dir, *flags)[0] == 0


@pytest.fixture(scope="module")
def data(tiny_folder):
    """The flags of the data, from any folder."""
    return [*tiny_folder.flags, "--dataset", f"folder:{tiny_folder.path / 'images'}"]


@pytest.fixture(scope="module")
def two(data, tmp_path_factory):
    """What two processes told, and the folders of their runs and of one process's."""
    folder = tmp_path_factory.mktemp("two")
    whole, half = folder / "alone", folder / "half"
    train_alone(data, half, "--max_steps", "10")
    shutil.copytree(half, whole)
    train_alone(data, whole)
    for rank in range(2):
        (folder / f"rank{rank}").mkdir()
    shutil.copytree(half, folder / "rank0" / "begun_alone")
    # A fork has torch imported already, but no use of CUDA if this process has touched it.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    launcher = context.Process(target=launch, args=(folder, data))
    launcher.start()
    launcher.join(600)
    launcher.kill()
    assert launcher.exitcode == 0, (folder / "output").read_text()
    first, second = (json.loads((folder / f"told{rank}.json").read_text()) for rank in range(2))
    return SimpleNamespace(
        folder=folder, runs=folder / "rank0", alone=whole, first=first, second=second
    )


# One process


def test_a_process_alone_exchanges_nothing():
    def fail():
        raise UserError("what is wrong")

    assert ALONE == World()
    assert ALONE.alone
    assert not World(rank=1, size=2).alone
    assert ALONE.all_gather("value") == ["value"]
    assert (
        ALONE.broadcast_from_rank0(lambda: "made") == ALONE.run_everywhere(lambda: "made") == "made"
    )
    for call in (ALONE.broadcast_from_rank0, ALONE.run_everywhere):
        with pytest.raises(UserError, match="what is wrong"):
            call(fail)
    values = torch.randn(3, 2)
    for exchanged in (
        ALONE.all_reduce_mean(values),
        ALONE.all_reduce_min(values),
        ALONE.all_gather_rows(values),
    ):
        assert torch.equal(exchanged, values)
    assert ALONE.with_group_for(torch.device("cpu")) is ALONE
    assert values[ALONE.shard(3)].shape == values.shape


def test_the_rows_of_all_processes_are_the_batch():
    parts = [list(range(12))[World(rank, 3).shard(12)] for rank in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("variables", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "2"}])
def test_without_others_there_is_no_group_to_join(monkeypatch, variables):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with join_world() as world:
        assert world == ALONE
        assert not dist.is_initialized()


# The networks of several processes, in a group of one


@pytest.fixture
def group(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_steps_under_distributed_data_parallel_are_the_same(group, sprites):
    """Two passes of the discriminator and one backward pass for each loss, as DDP counts them."""
    config = TrainConfig(hidden_dim=16, disc_depth=2, disc_width=24, batch_size=8, lr=1e-3)
    alone, parallel = (Trainer(config, sprites, torch.device("cpu")) for _ in range(2))
    parallel._vae = DistributedDataParallel(parallel.vae)
    parallel._discriminator = DistributedDataParallel(parallel.discriminator)
    for trainer in (alone, parallel):
        trainer.advance(3)
    assert same_state(alone.state_dict(), parallel.state_dict())


# Two processes


def test_two_processes_know_which_they_are(two):
    assert two.first["world"] == [0, 2, 0, 0, False]
    assert two.second["world"] == [1, 2, 1, 0, False]


def test_values_are_gathered_by_rank(two):
    assert two.first["gathered"] == two.second["gathered"] == [["from", 0], ["from", 1]]


def test_a_fault_in_one_process_is_raised_in_both(two):
    assert [told["together"] for told in (two.first, two.second)] == ["made in 0", "made in 1"]
    for told in (two.first, two.second):
        assert told["together, fault in 1"] == "what is wrong in 1"
        assert told["together, fault in both"] == "what is wrong in 0"


def test_the_first_process_makes_what_both_get(two):
    for told in (two.first, two.second):
        assert told["from first"] == "made in 0"
        assert told["from first, fault in 0"] == "what is wrong in 0"
    assert (two.first["calls of from first"], two.second["calls of from first"]) == (2, 0)


def test_one_process_of_a_machine_goes_ahead(two):
    assert not two.first["found prepared"]
    assert two.second["found prepared"]


def test_tensors_are_reduced_and_joined_by_rank(two):
    codes = torch.arange(24.0).reshape(8, 3)
    for rank, told in enumerate((two.first, two.second)):
        assert told["average"] == [0.5, 0.5, 5.0]
        assert told["least"] == [0.0, 0.0, 5.0]
        assert told["values"] == [rank, 1.0 - rank, 5.0]  # as they were
        assert told["concatenated"] == codes.tolist()
        assert told["of columns"] == torch.cat([codes[:4].t(), codes[4:].t()]).tolist()


def test_codes_are_permuted_over_the_whole_batch(two):
    codes = torch.arange(24.0).reshape(8, 3)
    expected = permute_dims(codes, torch.Generator().manual_seed(0))
    assert two.first["permuted"] + two.second["permuted"] == expected.tolist()
    assert not torch.equal(expected[:4].sort(dim=0).values, codes[:4])  # codes changed processes


def assert_same_but_for_rounding(run_dir, other, start):
    """Weights and log of two runs, whose weights began as `start`."""
    one, two = load_checkpoint(run_dir), load_checkpoint(other)
    assert one["step"] == two["step"] == 20
    assert one["finished"]
    for network in ("vae", "discriminator"):
        for name, before in start[network].items():
            moved = two[network][name] - before
            apart = one[network][name] - two[network][name]
            assert moved.norm() > 0
            assert apart.norm() < 0.002 * moved.norm(), (network, name)
    logs = read_log(run_dir), read_log(other)
    for name in set(logs[0]) - {"images_per_second"}:
        assert logs[0][name].tolist() == pytest.approx(logs[1][name].tolist(), rel=1e-4)


@pytest.fixture(scope="module")
def start(data):
    """The weights that every run of these settings begins with."""
    config = parse(TrainConfig, "", [*data, *SMALL])
    dataset = load_dataset(config.dataset, config.data_dir, **config.dataset_options())
    trainer = Trainer(config, dataset, torch.device("cpu"))
    return {"vae": trainer.vae.state_dict(), "discriminator": trainer.discriminator.state_dict()}


def test_a_run_by_two_processes_is_one_processs_but_for_rounding(two, start):
    assert two.first["codes"]["whole"] == two.second["codes"]["whole"] == 0
    assert_same_but_for_rounding(two.runs / "whole", two.alone, start)


def test_two_processes_go_on_with_a_run_begun_by_one(two, start):
    assert two.first["codes"]["begun alone"] == two.second["codes"]["begun alone"] == 0
    assert "resuming at step 10 of 20" in (two.runs / "begun_alone" / "log.txt").read_text()
    assert_same_but_for_rounding(two.runs / "begun_alone", two.alone, start)


def test_what_the_discriminator_is_told_of_all_codes_is_the_same_in_two(two, start, data, tmp_path):
    assert two.first["codes"]["of all codes"] == two.second["codes"]["of all codes"] == 0
    train_alone(data, tmp_path / "alone", *OF_ALL_CODES)
    assert_same_but_for_rounding(two.runs / "of_all_codes", tmp_path / "alone", start)


def test_one_process_goes_on_with_a_run_begun_by_two(two, start, data, tmp_path):
    assert two.first["codes"]["begun together"] == two.second["codes"]["begun together"] == 0
    run_dir = tmp_path / "begun_together"
    shutil.copytree(two.runs / "begun_together", run_dir)
    train_alone(data, run_dir)
    assert "resuming at step 10 of 20" in (run_dir / "log.txt").read_text()
    assert_same_but_for_rounding(run_dir, two.alone, start)


@needs_cuda
def test_cuda_two_processes_on_one_card_are_one_but_for_rounding(two):
    one, other = (
        torch.load(two.folder / f"on_card{rank}.pt", weights_only=True) for rank in range(2)
    )
    start = Trainer(ON_CARD, noise(), "cuda").state_dict()
    alone = steps_on_card(ALONE, noise())
    for network in ("vae", "discriminator"):
        assert same_state(one[network], other[network])
        for name, before in start[network].items():
            moved = (alone[network][name] - before).norm()
            apart = (alone[network][name] - one[network][name]).norm()
            assert moved > 0
            assert apart < 0.02 * moved, (network, name)


def test_more_processes_than_devices_are_refused_but_in_tests(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(dist, "new_group", lambda backend: backend)
    world, device = World(size=2), torch.device("cuda", 0)
    with pytest.raises(UserError, match="2 processes cannot share 1 CUDA devices"):
        world.with_group_for(device)
    assert world.with_group_for(device, "gloo").group == "gloo"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert world.with_group_for(device).group == "nccl"


def test_only_the_first_process_writes_and_tells(two):
    assert list((two.folder / "rank1").iterdir()) == []
    runs = {path.name: {file.name for file in path.iterdir()} for path in two.runs.iterdir()}
    files = {"ckpt.pt", "config.json", "stats.csv", "log.txt"}
    folders = ("whole", "begun_alone", "begun_together", "of_all_codes", "stopped")
    assert runs == dict.fromkeys(folders, files)
    for name in ("whole", "begun alone", "begun together", "finished"):
        assert two.second["outputs"][name] == ["", ""]
    assert "2 processes with a part of every batch" in two.first["outputs"]["whole"][0]
    assert "is finished: 20 steps are done" in two.first["outputs"]["finished"][0]
    assert two.first["codes"]["finished"] == two.second["codes"]["finished"] == 0


def test_a_signal_to_one_process_stops_both_long_before_a_row_of_the_log(two):
    assert [told["codes"]["stopped"] for told in (two.first, two.second)] == [143, 143]
    assert 0 < load_checkpoint(two.runs / "stopped")["step"] < 1_000_000
    assert len(read_log(two.runs / "stopped")["step"]) == 0
    assert "stopped at step" in (two.runs / "stopped" / "log.txt").read_text()


def test_a_batch_that_cannot_be_split_is_one_line_and_exit_2(two):
    for told in (two.first, two.second):
        assert told["codes"]["not to be split"] == 2
        error = "error: --batch_size 7 cannot be split over 2 processes\n"
        assert told["outputs"]["not to be split"] == ["", error]
