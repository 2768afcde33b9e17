"""visualize.py from end to end, on small checkpoints and a small dataset of squares."""

import base64
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import visualize
from factorvae import run_log
from factorvae.checkpoint import load_checkpoint, save_checkpoint, weights_digest
from factorvae.config import TrainConfig
from factorvae.datasets import DATASETS, FactorSpace
from factorvae.errors import run_script
from factorvae.files import STATS_NAME
from factorvae.metrics import mig
from factorvae.models import VAE
from factorvae.pages import drawing
from factorvae.pages.gallery import EXHIBITS, Gallery
from factorvae.pages.traversal import choose_images, image_name, position_factors, shape_factor
from factorvae.plots.style import TITLES, factor_value, png_bytes
from factorvae.plots.titles import run_title

SPACE = FactorSpace(("shape", "scale", "posX", "posY"), (3, 2, 6, 6))
SHAPE = (1, 32, 32)
PICTURES = {
    "traversals.png",
    "traversals.gif",
    "reconstructions.png",
    "samples.png",
    "latent_response.png",
    "factor_matrix.png",
    "training.png",
    "explorer.html",
    "index.html",
}


@dataclasses.dataclass
class Squares:
    """A square (shape 0), or one without its upper (1) or left half (2)."""

    channels: int = 1
    factor_space: FactorSpace | None = SPACE
    name: str = "squares"
    source: str = "drawn"

    factors: np.ndarray | None = None
    value_words: dict = dataclasses.field(default_factory=dict)

    @property
    def image_shape(self):
        return (self.channels, 32, 32)

    @property
    def factor_names(self):
        known = self.factor_space or self.factors is not None
        return SPACE.names if known else ()

    @property
    def factor_sizes(self):
        return self.factor_space.sizes if self.factor_space else ()

    def __len__(self):
        return len(SPACE)

    def images(self, index):
        pictures = np.zeros((len(index), self.channels, 32, 32), dtype=np.uint8)
        factors = SPACE.factors_of(np.asarray(index))
        for picture, (shape, scale, x, y) in zip(pictures, factors, strict=True):
            half, cx, cy = 3 + 2 * scale, 6 + 4 * x, 6 + 4 * y
            top, left = cy - half * (shape != 1), cx - half * (shape != 2)
            picture[:, max(0, top) : cy + half, max(0, left) : cx + half] = 255
        return torch.from_numpy(pictures)

    def batch(self, index, device="cpu"):
        return (self.images(index).float() / 255).to(device)


PLAIN = Squares(factor_space=None, name="plain")


@pytest.fixture(autouse=True)
def a_folder_and_datasets(tmp_path, monkeypatch):
    """Every test runs in its own folder, with three more datasets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DATASETS, "squares", lambda data_dir: Squares())
    monkeypatch.setitem(DATASETS, "rgb", lambda data_dir: Squares(3, name="rgb"))
    monkeypatch.setitem(DATASETS, "plain", lambda data_dir: PLAIN)


def write_run(
    folder, dataset="squares", latent_dim=2, step=100, finished=True, log=True, gamma=6.4, **changes
):
    """A run's folder as train.py leaves it, its weights drawn at random."""
    channels = 3 if dataset == "rgb" else 1
    vae = VAE((channels, 32, 32), latent_dim, 16, torch.Generator().manual_seed(0))
    with torch.no_grad():  # the first latents are told apart from dead ones
        vae.encoder.head.weight[: -(-latent_dim // 2)] *= 50
    config = TrainConfig(dataset=dataset, latent_dim=latent_dim, hidden_dim=16, gamma=gamma)
    config = dataclasses.replace(config, **changes)
    folder = Path(folder)
    folder.mkdir(parents=True)
    checkpoint = {
        "config": dataclasses.asdict(config),
        "dataset": {
            "name": dataset,
            "source": "drawn",
            "image_shape": [channels, 32, 32],
            "factor_names": list(SPACE.names),
            "factor_sizes": list(SPACE.sizes),
        },
        "step": step,
        "finished": finished,
        "vae": vae.state_dict(),
        "discriminator": None,
    }
    save_checkpoint(folder / "ckpt.pt", checkpoint)
    if log:
        header = run_log.columns(latent_dim)
        rows = [",".join([str(n), *["0.5"] * (len(header) - 1)]) for n in range(10, step + 30, 10)]
        (folder / STATS_NAME).write_text("\n".join([",".join(header), *rows]) + "\n")
    return folder


def run(*argv):
    """The exit code of the command line, as the shell would see it."""
    return run_script(lambda: visualize.main([*argv, "--threads", "1"]))


def shown_on(page):
    """The pictures embedded in a page: what each is said to be, and what it is."""
    found = re.findall(r'src="data:image/(\w+);base64,([^"]*)"', page)
    return [(kind, Image.open(io.BytesIO(base64.b64decode(data)))) for kind, data in found]


@pytest.mark.parametrize(
    ("dataset", "latent_dim"),
    [
        ("squares", 4),
        ("rgb", 1),
        *(pytest.param("squares", latents, marks=pytest.mark.slow) for latents in (10, 64)),
    ],
)
def test_every_picture_is_written_and_is_on_the_page(capsys, dataset, latent_dim):
    write_run("runs/a", dataset, latent_dim)
    argv = ["--model_path", "runs/a/ckpt.pt", "--output_dir", "out/deep", "--num_images", "2"]
    assert run(*argv) == 0
    written = {path.name: path for path in Path("out/deep").iterdir()}
    assert written.keys() == PICTURES
    for name, path in written.items():
        if name.endswith("png"):
            assert min(Image.open(path).size) > 100
    assert written["traversals.gif"].stat().st_size < 2_000_000
    gif = Image.open(written["traversals.gif"])
    assert gif.info["loop"] == 0 and gif.n_frames >= 24

    page = written["index.html"].read_text(encoding="utf-8")
    shown = shown_on(page)
    assert [kind for kind, _ in shown] == ["png", "gif", "png", "png", "png", "png", "png"]
    assert [picture.format.lower() for _, picture in shown] == [kind for kind, _ in shown]
    whole = np.asarray(Image.open(written["traversals.png"]).convert("RGB"))
    on_page = np.asarray(shown[0][1].convert("RGB"))
    np.testing.assert_array_equal(on_page, whole[TITLES:])  # the page has the titles itself
    assert shown[1][1].size == (gif.width, gif.height - TITLES)
    assert "http" not in page and len(re.findall("src=", page)) == 7
    title = f"FactorVAE on {dataset}, step 100, β = 1, γ = 6.4"
    assert f"<h1>{title}</h1>" in page and '<a href="explorer.html">' in page
    assert "None" not in page and "capacity" not in page  # which is no setting of FactorVAE
    assert "<td>ELBO / nats</td><td>-1.0</td>" in page  # of the log's last row
    assert "running means" not in page and "evaluate.py" not in page
    assert ("below the dashed line" in page) == (latent_dim > 1)
    assert f"<h1>{title}</h1>" in written["explorer.html"].read_text(encoding="utf-8")
    for key, value in (("latent_dim", latent_dim), ("lr_disc", 0.0001), ("batch_size", 64)):
        assert f"<td>{key}</td><td>{value}</td>" in page
    said = capsys.readouterr().out
    assert all(f"out/deep/{name}\n" in said for name in PICTURES)


def scores_of(step, **more):
    """A metrics.json as evaluate.py writes it, with a MIG of .1234."""
    value = {"value": 0.1234, "standard_error": 0.01, "measure": "mig", "how": "20 bins"}
    return {
        "checkpoint": {"path": "runs/a/ckpt.pt", "step": step},
        "data": {"name": "squares", "source": "drawn", "factor_names": list(SPACE.names)},
        "settings": {"seed": 0},
        "points": {"num_points": 200},
        "scores": {"mig": value, "kl": value | {"value": None}},
        "details": {},
    } | more


def test_scores_beside_the_checkpoint_are_on_the_page_where_they_are_of_its_step(capsys, hung):
    folder = write_run("runs/a")
    for step in (100, 50):
        (folder / "metrics.json").write_text(json.dumps(scores_of(step)))
        assert run() == 0
    said = capsys.readouterr().out
    assert "runs/a/metrics.json is of step 50 and is left out" in said
    (table,), nothing = (tables for *_, tables in hung)
    assert list(nothing) == []
    assert [list(row) for row in table.rows[1:]] == [["MIG", "0.123", "0.010", "20 bins"]]
    assert "squares, drawn: 200 points" in table.caption
    (folder / "metrics.json").write_text("{}")
    assert run() == 2
    assert "runs/a/metrics.json is damaged" in capsys.readouterr().err


SOUND = {
    "dci": {"importance": [[1, 0, 0.5, None]] * 2, "completeness_per_factor": [1, 0, 0.5, None]},
    "sap": {"scores": [[1, 0, 0.5, 0]] * 2, "gaps": [0, 0.0, 0, 0]},
}


def with_changed(metric, **changes):
    return SOUND | {metric: SOUND[metric] | changes}


@pytest.mark.parametrize(
    "details",
    [
        {"dci": {}},
        {"dci": {"importance": SOUND["dci"]["importance"]}},
        {"sap": {"gaps": [0, 0, 0, 0]}},
        with_changed("dci", importance=[["a"]]),
        with_changed("dci", importance=[["1", "0", "1", "0"]] * 2),
        with_changed("dci", importance=[[1, 0, 1, 0], [1, 0, 1]]),
        with_changed("dci", importance=[[1, 0, 1]] * 2),
        with_changed("dci", importance=[[[1], [0], [1], [0]]] * 2),
        with_changed("dci", importance=[[1, 0, 1, 10**400]] * 2),
        with_changed("dci", importance=[[1, 0, 1, float("inf")]] * 2),
        with_changed("dci", importance=[[1, 0, 1, 0]]),  # of one latent; the model has two
        with_changed("dci", importance=[[1, 0, 1, 0]] * 3),
        with_changed("dci", importance=[]),
        with_changed("dci", importance=None),
        with_changed("dci", completeness_per_factor=0.5),
        with_changed("dci", completeness_per_factor=[1, 0, 1]),
        with_changed("sap", scores={"shape": [1, 0]}),
        with_changed("sap", gaps=["a", 0, 0, 0]),
        with_changed("sap", gaps=[[0, 0, 0, 0]]),
    ],
)
def test_details_of_the_wrong_content_are_one_line(capsys, details):
    folder = write_run("runs/a")
    (folder / "metrics.json").write_text(json.dumps(scores_of(100, details=details)))
    assert run() == 2
    told = "error: runs/a/metrics.json is damaged; evaluate.py writes it anew\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("names", [[], ["shape", "scale", "posX", 3], [None] * 4, 4])
def test_details_of_factors_without_names_are_one_line(capsys, names):
    folder = write_run("runs/a")
    content = scores_of(100, details=SOUND)
    content["data"]["factor_names"] = names
    (folder / "metrics.json").write_text(json.dumps(content))
    assert run() == 2
    assert "runs/a/metrics.json is damaged; evaluate.py writes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("how", 3),
        ("value", "much"),
        ("value", 10**400),
        ("value", float("nan")),
        ("standard_error", "some"),
    ],
)
def test_scores_of_the_wrong_kind_are_one_line(capsys, key, value):
    folder = write_run("runs/a")
    content = scores_of(100)
    content["scores"]["mig"][key] = value
    (folder / "metrics.json").write_text(json.dumps(content))
    for path in ("runs/a", "runs"):  # by itself, and in a sweep
        assert run("--model_path", path) == 2
        told = "error: runs/a/metrics.json is damaged; evaluate.py writes it anew\n"
        assert capsys.readouterr().err == told


def test_sound_details_are_drawn_and_those_of_other_metrics_are_as_they_are():
    folder = write_run("runs/a")
    details = SOUND | {"losses": {"kl_per_latent": "unknown"}}
    (folder / "metrics.json").write_text(json.dumps(scores_of(100, details=details)))
    assert run("--output_dir", "out") == 0
    drawn = {path.name for path in Path("out").iterdir()}
    assert drawn == PICTURES | {"dci_matrix.png", "sap_matrix.png"}


def test_scores_of_other_weights_are_left_out(capsys, hung, sweep_runs):
    folder = write_run("runs/a")
    of_it = weights_digest(load_checkpoint(folder))
    for weights in (of_it, None, "0" * 64):  # of it; of an earlier version; of another model's
        content = scores_of(100)
        content["checkpoint"]["weights"] = weights
        (folder / "metrics.json").write_text(json.dumps(content))
        for path in ("runs/a", "runs"):
            assert run("--model_path", path) == 0
    assert [len(tables) for *_, tables in hung] == [1, 1, 0]
    assert [dict(shown.scores) for shown in sweep_runs] == [{"mig": 0.1234}] * 2 + [{}]
    assert capsys.readouterr().out.count("runs/a/metrics.json is of other weights") == 2


def test_scores_of_other_images_than_are_drawn_are_left_out(capsys, hung, sweep_runs):
    folder = write_run("runs/a")
    (folder / "metrics.json").write_text(json.dumps(scores_of(100)))
    for flags in ((), ("--dataset", "plain")):
        for path in ("runs/a", "runs"):
            assert run("--model_path", path, *flags) == 0
    (of_its_own,), of_others = (tables for *_, tables in hung)
    assert of_its_own.rows[1][0] == "MIG" and of_others == []
    assert [dict(shown.scores) for shown in sweep_runs] == [{"mig": 0.1234}, {}]
    told = "metrics.json is of squares, drawn and is left out; the pictures are of plain, drawn\n"
    assert capsys.readouterr().out.count(f"runs/a/{told}") == 2


def test_scores_of_another_file_of_a_runs_folder_are_not_the_runs(sweep_runs):
    content = scores_of(100)
    content["checkpoint"]["path"] = "runs/a/other.pt"  # as earlier versions wrote them
    (write_run("runs/a") / "metrics.json").write_text(json.dumps(content))
    assert run("--model_path", "runs") == 0
    assert [dict(shown.scores) for shown in sweep_runs] == [{}]


def test_the_runs_of_a_sweep_come_in_numeric_order(monkeypatch):
    for gamma in (35.0, 6.4, 100.0, 0.0):
        write_run(f"sweep/gamma{gamma:g}", gamma=gamma)
    shown = []

    def write(runs, *rest):
        shown.extend(run.name for run in runs)
        return []

    monkeypatch.setattr(drawing, "write_sweep_gallery", write)
    assert run("--model_path", "sweep") == 0
    assert shown == ["gamma6.4", "gamma35", "gamma100", "gamma0"]  # the last is another method


def test_factors_values_are_told_in_pi_where_they_are_multiples_of_it():
    told = [factor_value(times * np.pi) for times in (-11, -1, 0, 1, 2, 21)]
    assert told == ["−11π", "−π", "0", "π", "2π", "21π"]
    assert [factor_value(value) for value in (3.14, -0.5, 355)] == ["3.14", "−0.5", "355"]


def write_scores(folder, score, step):
    content = scores_of(step, points={"num_points": 2560})
    content["settings"]["factors"] = ["x", "y"]
    made = {"standard_error": None, "how": "by votes"}
    content["scores"] = {"factor_vae_score": {"value": score, **made}}
    (folder / "metrics.json").write_text(json.dumps(content))


@pytest.fixture
def sweep_runs(monkeypatch):
    """The runs of which a sweep's page is made, without the page."""
    shown = []
    monkeypatch.setattr(
        drawing, "write_sweep_gallery", lambda runs, *rest: shown.extend(runs) or []
    )
    return shown


def test_a_damaged_run_is_left_out_of_a_sweeps_page(sweep_runs, capsys):
    for name in ("a", "b", "c"):
        write_run(f"sweep/{name}")
    Path("sweep/a/ckpt.pt").write_bytes(b"torn")
    assert run("--model_path", "sweep") == 0
    assert [shown.name for shown in sweep_runs] == ["b", "c"]
    out = capsys.readouterr().out
    assert "left out: sweep/a/ckpt.pt is damaged" in out and "sweep: 2 runs\n" in out
    for name in ("b", "c"):
        Path(f"sweep/{name}/ckpt.pt").write_bytes(b"torn")
    assert run("--model_path", "sweep") == 2
    assert "error: sweep: none of its checkpoints can be read\n" in capsys.readouterr().err


def test_scores_of_an_earlier_step_are_left_out_of_a_sweeps_page(sweep_runs, capsys):
    for name, measured in (("a", 50), ("b", 100)):
        write_scores(write_run(f"sweep/{name}"), 0.5, measured)
    assert run("--model_path", "sweep") == 0
    assert [dict(shown.scores) for shown in sweep_runs] == [{}, {"factor_vae_score": 0.5}]
    made = {"factor_vae_score": "by votes, 2,560 points, x, y only"}
    assert [dict(shown.made) for shown in sweep_runs] == [{}, made]
    assert "sweep/a/metrics.json is of step 50 and is left out" in capsys.readouterr().out


def test_runs_are_of_one_setting_where_they_differ_by_their_seed_only(sweep_runs):
    differing = {"a": {}, "b": {"seed": 1}, "c": {"lr": 1e-3}, "d": {"wake_at": (9, 20)}}
    for name, changes in differing.items():
        write_run(f"sweep/{name}", **changes)
    write_run("sweep/e", step=50)
    write_run("sweep/f", latent_dim=3)
    assert run("--model_path", "sweep") == 0
    title = "β = 1, γ = 6.4, latent_dim {}, {}lr {}, {} steps"
    assert {shown.name: shown.setting for shown in sweep_runs} == {
        "a": title.format(2, "", "0.0001", 100),
        "b": title.format(2, "", "0.0001", 100),
        "c": title.format(2, "", "0.001", 100),
        "d": title.format(2, "wake_at 9 20, ", "0.0001", 100),
        "e": title.format(2, "", "0.0001", 50),
        "f": title.format(3, "", "0.0001", 100),
    }


def test_runs_on_different_data_have_no_page_together(sweep_runs, capsys):
    for dataset in ("squares", "rgb"):
        write_run(f"runs/{dataset}", dataset)
    assert run("--model_path", "runs") == 2
    assert capsys.readouterr().err == (
        "error: runs: rgb and squares are of different data, which no page has together\n"
    )
    assert sweep_runs == []


def test_a_sweeps_pictures_are_of_the_images_asked_for(sweep_runs, capsys):
    for name in "ab":
        write_run(f"sweep/{name}")
    assert run("--model_path", "sweep", "--image_index", "5", "0") == 0
    assert [shown.gallery().base_index.tolist() for shown in sweep_runs] == [[5, 0]] * 2
    assert run("--model_path", "sweep", "--image_index", "99999") == 2
    assert "--image_index 99999 is out of range" in capsys.readouterr().err


@pytest.mark.usefixtures("hung")
def test_the_newest_checkpoint_is_taken_and_named(capsys):
    for age, (name, finished) in enumerate((("new", False), ("old", True))):
        folder = write_run(f"runs/{name}", step=70 + age, finished=finished)
        os.utime(folder / "ckpt.pt", (10**9 - age, 10**9 - age))
    assert run("--output_dir", "results") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "the newest under runs/: runs/new/ckpt.pt, step 70, not finished"


def test_what_cannot_be_drawn_is_left_out_and_said(capsys):
    write_run("runs/a", "plain", log=False)
    assert run("--model_path", "runs/a") == 0
    missing = {"latent_response.png", "factor_matrix.png", "training.png"}
    assert {path.name for path in Path("results").iterdir()} == PICTURES - missing
    said = capsys.readouterr().out
    assert "results/latent_response: left out, the factors of plain are not known" in said
    assert "results/training: left out, there is no log beside the checkpoint" in said
    page = Path("results/index.html").read_text(encoding="utf-8")
    assert [kind for kind, _ in shown_on(page)] == ["png", "gif", "png", "png"]


def test_no_page_is_replaced_that_is_of_something_else(capsys):
    write_run("runs/a")
    Path("results").mkdir()
    Path("results/index.html").write_text("<h1>My site</h1>")
    for model in ("runs/a", "runs"):  # a run, and a sweep of one
        assert run("--model_path", model) == 2
        told = "error: results/index.html is no page of these pictures, which would replace it"
        assert capsys.readouterr().err.startswith(told)
    assert [path.name for path in Path("results").iterdir()] == ["index.html"]


@pytest.mark.slow
def test_a_picture_of_before_is_not_passed_off_as_the_models(capsys):
    folder = write_run("runs/a", "plain")
    assert run("--model_path", "runs/a") == 0
    (folder / "stats.csv").unlink()
    assert run("--model_path", "runs/a") == 0
    told = "there is no log beside the checkpoint; training.png there is an earlier one\n"
    assert told in capsys.readouterr().out


@pytest.mark.slow
def test_vector_pictures_stand_beside_a_page_that_shows_pixels():
    write_run("runs/a")
    assert run("--format", "svg", "--num_images", "1") == 0
    assert {path.name for path in Path("results").iterdir()} == {
        name.replace("png", "svg") for name in PICTURES
    }
    for path in Path("results").glob("*.svg"):
        assert path.read_bytes().startswith(b"<?xml")
    page = Path("results/index.html").read_text(encoding="utf-8")
    assert {kind for kind, _ in shown_on(page)} == {"png", "gif"}


@pytest.fixture
def hung(monkeypatch):
    """The galleries that visualize.py would write, with their format and tables of scores."""
    galleries = []

    def write(gallery, output_dir, format, settings, tables):
        galleries.append((gallery, format, tables))
        return []

    monkeypatch.setattr(drawing, "write_gallery", write)
    return galleries


def test_the_same_seed_gives_the_same_pictures_and_another_other_ones(hung):
    write_run("runs/a")
    for seed in ("3", "3", "4"):
        assert run("--seed", seed, "--num_images", "2") == 0
    for draw in (Gallery.traversals, Gallery.reconstructions, Gallery.samples):
        first, again, other = (png_bytes(draw(gallery)) for gallery, *_ in hung)
        assert first == again and first != other


def test_the_data_are_loaded_as_in_training(hung, monkeypatch):
    asked = []

    def load(data_dir, *, crop=None):
        asked.append((data_dir, crop))
        return Squares()

    monkeypatch.setitem(DATASETS, "squares", load)
    folder = write_run("runs/a")
    checkpoint = torch.load(folder / "ckpt.pt", weights_only=True)
    checkpoint["config"]["data_dir"] = "elsewhere"
    Path("elsewhere").mkdir()
    checkpoint["dataset"]["options"] = {"crop": 148}
    save_checkpoint(folder / "ckpt.pt", checkpoint)
    assert run() == 0 and run("--data_dir", "here") == 0
    assert asked == [("elsewhere", 148), ("here", 148)]


def test_flags_reach_the_gallery(hung):
    write_run("runs/a", "squares")
    assert run("--dataset", "plain", "--image_index", "7", "0", "7", "--format", "pdf") == 0
    ((gallery, format, _),) = hung
    assert gallery.dataset is PLAIN and gallery.title.startswith("FactorVAE on plain, step 100")
    assert gallery.base_index.tolist() == [7, 0, 7] and format == "pdf"
    assert gallery.log["step"].tolist() == list(range(10, 101, 10))  # as far as the checkpoint
    assert gallery.vae.latent_dim == 2 and not gallery.vae.training


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--model_path", "nothing.pt"], "no checkpoint at nothing.pt"),
        (["--model_path", "foreign.pt"], "foreign.pt is no"),
        (["--model_path", "text.pt"], "text.pt is damaged"),
        (["--model_path", "runs/a", "--output_dir", "text.pt/below"], "--output_dir"),
        (["--model_path", "runs/a", "--output_dir", "text.pt"], "--output_dir"),
        (["--model_path", "runs/a", "--dataset", "rgb"], r"\(1, 32, 32\), rgb has \(3, 32, 32\)"),
        (["--model_path", "runs/a", "--dataset", "sprites"], "unknown dataset"),
        (["--model_path", "runs/a", "--image_index", "3", "216"], "--image_index 216"),
        (["--model_path", "runs/a", "--image_index", "-1"], "--image_index"),
        (["--model_path", "runs/a", "--num_images", "0"], "--num_images must be at least 1"),
        (["--model_path", "runs/a", "--num_images", "33"], "--num_images 33"),
        (["--model_path", "runs/a", "--image_index", *["0"] * 33], "33 images"),
        (["--model_path", "runs/a", "--format", "jpg"], "--format must be one of png, pdf, svg"),
        (["--model_path", "runs/a", "--device", "cuda:99"], "--device cuda:99"),
        (["--model_path", "runs/a", "--seed", "-1"], "--seed must be at least 0"),
        (["--no_such_flag"], "--no_such_flag"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(capsys, argv, told):
    write_run("runs/a")
    torch.save({"weights": torch.zeros(2)}, "foreign.pt")
    Path("text.pt").write_text("not a checkpoint")
    assert run(*argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(told, error)
    assert not Path("results/index.html").exists()


def test_a_model_that_encodes_to_no_number_is_named_in_one_line(capsys):
    path = write_run("runs/a") / "ckpt.pt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["vae"]["encoder.head.bias"][-1] = 800  # a log variance, whose variance is infinite
    save_checkpoint(path, checkpoint)
    assert run() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: runs/a/ckpt.pt gives 3 of 3 images a mean or variance")
    assert error.count("\n") == 1 and not list(Path("results").iterdir())


def test_no_run_at_all_is_said_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr("factorvae.checkpoint.DEFAULT_MODEL", Path("no_model_ships.pt"))
    assert run("--output_dir", "results") == 2
    error = capsys.readouterr().err
    assert "no checkpoint under runs" in error and error.count("\n") == 1


@pytest.mark.slow
def test_the_script_itself_exits_with_2_and_without_a_traceback():
    script = Path(visualize.__file__)
    done = subprocess.run(
        [sys.executable, script, "--model_path", "nothing.pt"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: no checkpoint at nothing.pt\n" and done.stdout == ""


# --- the gallery's parts -------------------------------------------------------------------------


class Known(torch.nn.Module):
    """Encodes the centre of the white pixels, x into latent 1 and y into 2; 0 is dead."""

    latent_dim = 3

    def encode(self, x):
        weight = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
        pixel = torch.linspace(-2, 2, 32)
        mu = torch.stack([torch.zeros(len(x)), (weight.sum(1) @ pixel), weight.sum(2) @ pixel], 1)
        return mu, torch.tensor([0.0, -3.0, -2.0]).expand(len(x), 3)

    def decode(self, z):
        """Logits of a bar at x, as bright as the y is high."""
        bar = (torch.linspace(-2, 2, 32) - z[:, 1:2]).abs() < 0.2
        return torch.where(bar, z[:, 2:3], -9.0)[:, None, None].expand(-1, 1, 32, 32)


@pytest.fixture
def gallery():
    return Gallery(
        vae=Known(),
        dataset=Squares(),
        device=torch.device("cpu"),
        title=run_title("squares", 1, 1.0, 6.4),
        base_index=np.array([0, 215]),
    )


def test_the_gallery_traverses_and_encodes_the_images_it_was_given(gallery):
    figure = gallery.traversals()
    labels = {axes.get_label(): axes for axes in figure.axes}
    # x has the smaller variance of the two and so the larger KL; latent 0 is the prior itself.
    assert labels.keys() == {
        f"base {base}: {what}" for base in (0, 1) for what in ("image", "decoded", "z1", "z2", "z0")
    }
    for base, index in enumerate(gallery.base_index):
        shown = np.asarray(labels[f"base {base}: image"].images[0].get_array())[::2, ::2, 0]
        np.testing.assert_array_equal(shown, gallery.dataset.images([index])[0, 0].numpy())
    grid = np.asarray(labels["base 0: z1"].images[0].get_array())[2:, 2:, 0]
    row = grid[32].reshape(7, 66)[:, :64]  # the middle of the row of z1
    mark = next(a for a in figure.artists if a.get_label() == "base 0: code of z1")
    x = mark.get_xdata()[0] * figure.bbox.width - labels["base 0: z1"].bbox.x0
    code = Known().encode(gallery.dataset.batch(gallery.base_index))[0][0, 1]
    assert x == pytest.approx(2 + 32 + (float(code) + 3) * 66, abs=0.01)
    centers = [np.flatnonzero(cell > 0.3 * cell.max()).mean() for cell in row[1:6]]
    assert np.diff(centers).min() > 10  # the bar goes right, until it leaves the image


def test_the_gallery_measures_responses_with_the_model(gallery):
    figure = gallery.latent_response()
    labels = {axes.get_label(): axes for axes in figure.axes}
    across = np.asarray(labels["z1: posX, posY"].images[0].get_array())
    down = np.asarray(labels["z2: posX, posY"].images[0].get_array())
    assert (np.diff(across, axis=1) > 0.3).all() and np.abs(np.diff(across, axis=0)).max() < 1e-5
    assert (np.diff(down, axis=0) > 0.3).all() and np.abs(np.diff(down, axis=1)).max() < 1e-5
    assert "z0: posX, posY" not in labels  # a dead one, folded into a line
    matrix = gallery.factor_matrix()
    shares = np.asarray(matrix.axes[0].images[0].get_array())  # factors by z1, z2, z0
    assert shares[2].argmax() == 0 and shares[3].argmax() == 1 and (shares[:, 2] == 0).all()


def test_the_factor_matrix_shows_the_shares_and_gaps_of_mig(gallery):
    factors = SPACE.factors_of(np.arange(len(SPACE))) * [1, 1, 0, 1]  # posX does not vary
    labels = Squares(factor_space=None, factors=factors)
    figure = dataclasses.replace(gallery, dataset=labels).factor_matrix()
    found = mig(Known().encode(labels.batch(np.arange(len(SPACE))))[0].numpy(), factors)
    shown, beside = figure.axes[:2]
    shares = np.asarray(shown.images[0].get_array())  # factors by z1, z2, z0
    for row in (0, 1, 3):
        expected = found["mutual_information"][[1, 2, 0], row] / found["entropy"][row]
        np.testing.assert_allclose(shares[row], expected, atol=1e-12)
    assert (shares[2] == 0).all() and shares[3].argmax() == 1
    np.testing.assert_allclose([patch.get_width() for patch in beside.patches], found["gaps"])
    assert found["gaps"][2] == 0 and found["gaps"][3] > 0.5
    assert any(f"(MIG) {found['mig']:.3f}" in text.get_text() for text in figure.texts)


def test_what_evaluate_measured_of_labels_is_drawn(gallery):
    """Of labels that are no grid: the scores' own numbers, a row per factor, latents by KL."""
    exhibits = {exhibit.name: exhibit for exhibit in EXHIBITS}
    labels = Squares(factor_space=None, factors=SPACE.factors_of(np.arange(len(SPACE))))
    importance = np.random.default_rng(0).random((3, 4))
    importance[0] = 0
    gaps = [0.5, 0.25, 0.0, 0.75]
    measured = {
        "dci": {"importance": importance.tolist(), "completeness_per_factor": [1, 0, 0.5, 0.25]},
        "sap": {"scores": importance.tolist(), "gaps": gaps},
    }
    without = dataclasses.replace(gallery, dataset=labels)
    given = dataclasses.replace(without, measured=measured, measured_factors=SPACE.names)
    for name, bars in (("dci_matrix", [1, 0, 0.5, 0.25]), ("sap_matrix", gaps)):
        assert "has not measured" in exhibits[name].obstacle(without)
        assert exhibits[name].obstacle(given) is None
        figure = exhibits[name].make(given)
        shown, beside = figure.axes[:2]
        np.testing.assert_allclose(shown.images[0].get_array(), importance.T[:, [1, 2, 0]])
        assert [patch.get_width() for patch in beside.patches] == bars
    assert exhibits["factor_matrix"].obstacle(without) is None
    assert "every combination" in exhibits["latent_response"].obstacle(without)


def test_factors_that_do_not_vary_have_no_matrix_and_no_part_in_a_mean(gallery):
    exhibits = {exhibit.name: exhibit for exhibit in EXHIBITS}
    factors = SPACE.factors_of(np.arange(len(SPACE)))
    still = Squares(factor_space=None, factors=0 * factors)
    why = exhibits["factor_matrix"].obstacle(dataclasses.replace(gallery, dataset=still))
    assert why == "no factor takes more than one value"
    # posX does not vary, and of shape no latent tells any held-out value
    some = Squares(factor_space=None, factors=factors * [1, 1, 0, 1])
    given = {"scores": [[0, 0.5, 0, 1.0]] * 3, "gaps": [0, 0.25, 0, 0.5]}
    factors_and_gaps = {"measured": {"sap": given}, "measured_factors": SPACE.names}
    figure = dataclasses.replace(gallery, dataset=some, **factors_and_gaps).separation_matrix()
    assert any("(SAP) 0.250" in text.get_text() for text in figure.texts)
    nothing = {"sap": {"scores": [[0]] * 3, "gaps": [0]}}
    of_one = {"measured": nothing, "measured_factors": ("shape",)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = dataclasses.replace(gallery, dataset=some, **of_one).separation_matrix()
    assert any("(SAP) 0.000" in text.get_text() for text in figure.texts)


def test_categories_are_called_by_their_words(gallery):
    words = {"shape": ("whole", "low", "right"), "scale": ("small", "$large$")}
    dataset = Squares(value_words=words)
    assert image_name(dataset, 215) == "right, image 215"
    figure = dataclasses.replace(gallery, dataset=dataset).latent_response()
    labels = {axes.get_label(): axes for axes in figure.axes}
    shown = [label.get_text() for label in labels["z2: scale"].get_xticklabels()]
    assert shown == ["small", "$large$"]


def test_one_image_of_each_shape_is_chosen():
    dataset = Squares()
    index = choose_images(dataset, 6, seed=1)
    assert SPACE.factors_of(index)[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert image_name(dataset, index[2]) == f"shape 2, image {index[2]}"
    sprites = dataclasses.replace(dataset, name="color_dsprites")
    assert image_name(sprites, index[2]) == f"heart, image {index[2]}"
    plain = dataclasses.replace(dataset, factor_space=None)
    assert len(set(choose_images(plain, 32).tolist())) == 32
    assert image_name(plain, 7) == "image 7"


def test_no_image_is_chosen_twice():
    class Few(Squares):
        def __len__(self):
            return 8

    few = Few(factor_space=FactorSpace(("shape", "x"), (2, 4)))
    for seed in range(50):
        index = choose_images(few, 6, seed)
        assert len(set(index.tolist())) == 6
        assert few.factor_space.factors_of(index)[:, 0].tolist() == 3 * [0, 1]
    assert sorted(choose_images(few, 8)) == [*range(8)]


@pytest.mark.parametrize(
    ("names", "sizes", "shape", "place"),
    [
        (("shape", "scale", "orientation", "posX", "posY"), (3, 6, 40, 32, 32), 0, (3, 4)),
        (("floor_hue", "shape", "scale"), (10, 4, 8), 1, None),
        (("object_shape", "horizontal_axis", "vertical_axis"), (6, 40, 40), 0, (1, 2)),
        (("category", "elevation"), (5, 9), 0, None),
        (("id", "azimuth"), (1393, 31), None, None),
        (("shape",), (1,), None, None),
    ],
)
def test_shapes_and_places_are_found_by_name(names, sizes, shape, place):
    space = FactorSpace(names, sizes)
    assert shape_factor(space) == shape
    assert position_factors(space) == place
