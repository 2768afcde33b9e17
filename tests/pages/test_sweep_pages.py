"""Pictures and tables of a sweep: means, deviations and bands over known runs."""

import itertools

import numpy as np
import pytest

from factorvae.evaluation.scores import SCORES
from factorvae.pages.sweep_gallery import (
    SweepRun,
    best_and_median,
    by_setting,
    comparable,
    how_made,
    plotted_points,
    score_table,
    write_sweep_gallery,
)
from factorvae.plots.sweep_plots import (
    scores_against_reconstruction,
    scores_over_training,
    sweep_curves,
)
from factorvae.plots.titles import COLUMN_TITLES

KNOWN = [score for score in SCORES if score.headline]


def log_of(recon, steps=(100, 200)):
    rows = len(steps)
    live = {"kl_0": np.ones(rows), "kl_1": np.zeros(rows)}
    columns = {"recon": np.full(rows, recon), "kl": np.ones(rows), "tc": np.full(rows, np.nan)}
    return {"step": np.array(steps), **columns, **live}


def run_of(name, setting, recon=50.0, **scores):
    return SweepRun(name, setting, log_of(recon), scores, gallery=None)


RUNS = [
    run_of("a0", "gamma 1", 40.0, factor_vae_score=0.5, recon_loss=40.0),
    run_of("b0", "gamma 6", 60.0, factor_vae_score=0.75, recon_loss=60.0),
    run_of("a1", "gamma 1", 44.0, factor_vae_score=0.7, recon_loss=44.0),
    run_of("a2", "gamma 1", 48.0),
]


def test_a_setting_has_all_its_runs_wherever_they_stand():
    assert {n: [r.name for r in runs] for n, runs in by_setting(RUNS).items()} == {
        "gamma 1": ["a0", "a1", "a2"],
        "gamma 6": ["b0"],
    }


def test_the_table_has_mean_and_deviation_of_the_runs_that_were_evaluated():
    assert score_table(RUNS, KNOWN) == [
        ["setting", "runs", "FactorVAE", "Recon"],
        ["gamma 1", "3", "0.600 ± 0.141 (of 2)", "42.00 ± 2.83 (of 2)"],
        ["gamma 6", "1", "0.750", "60.00"],
    ]


def test_scores_made_otherwise_than_most_are_neither_averaged_nor_ranked():
    runs = [
        SweepRun(name, "gamma 1", None, {"disentanglement": d, "mig": 0.1}, None, made)
        for name, d, made in (
            ("a", 0.5, {"disentanglement": "lasso", "mig": "20 bins"}),
            ("b", 0.1, {"disentanglement": "gbt", "mig": "20 bins"}),
            ("c", 0.3, {"disentanglement": "gbt", "mig": "20 bins"}),
        )
    ]
    kept, lines = comparable(runs, KNOWN)
    assert [dict(run.scores) for run in kept] == [
        {"mig": 0.1},
        {"disentanglement": 0.1, "mig": 0.1},
        {"disentanglement": 0.3, "mig": 0.1},
    ]
    assert lines == [
        "DCI D of a: left out, it was made otherwise than most runs' (lasso; theirs: gbt)"
    ]
    assert score_table(kept, KNOWN)[1] == ["gamma 1", "3", "0.100 ± 0.000", "0.200 ± 0.141 (of 2)"]
    assert how_made(kept, KNOWN) == " MIG: 20 bins. DCI D: gbt."
    assert comparable(RUNS, KNOWN) == (RUNS, [])


def test_best_and_median_are_by_the_score_and_never_the_same_run_twice():
    assert [(word, run.name) for word, run in best_and_median(RUNS)] == [
        ("best", "b0"),
        ("median", "a1"),
    ]
    assert [word for word, _ in best_and_median(RUNS[:1])] == ["best"]
    assert best_and_median(RUNS[3:]) == []


def test_each_run_is_a_point_and_each_setting_has_its_mean():
    points = {"gamma 1": np.array([[40.0, 0.5], [44.0, 0.7]]), "gamma 6": np.array([[60.0, 0.75]])}
    axes = {a.get_label(): a for a in scores_against_reconstruction(points).axes}
    drawn = [line.get_xydata().tolist() for line in axes["FactorVAE score of runs"].lines]
    assert drawn == [
        [[40.0, 0.5], [44.0, 0.7]],
        [pytest.approx([42.0, 0.6])],
        [[60.0, 0.75]],
        [[60.0, 0.75]],
    ]
    legend = axes["FactorVAE score of runs"].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["gamma 1 (2)", "gamma 6 (1)"]

    points = {name: np.c_[rows, rows[:, 1] / 2] for name, rows in points.items()}
    both = scores_against_reconstruction(points, scores=("FactorVAE score", "MIG"))
    axes = {a.get_label(): a for a in both.axes}
    for label, ys in (("FactorVAE score", [0.5, 0.7]), ("MIG", [0.25, 0.35])):
        first = axes[f"{label} of runs"].lines[0]
        assert first.get_xdata().tolist() == [40, 44] and first.get_ydata().tolist() == ys


def test_curves_are_means_within_a_deviation_at_the_steps_that_all_runs_have():
    logs = {"gamma 1": [log_of(40.0, (100, 200, 300)), log_of(60.0)]}
    axes = {a.get_label(): a for a in sweep_curves(logs).axes}
    (line,) = axes["recon"].lines
    assert line.get_xydata().tolist() == [[100, 50], [200, 50]]
    (band,) = axes["recon"].collections
    deviation = np.std([40, 60], ddof=1)
    bounds = {round(y, 3) for y in band.get_paths()[0].vertices[:, 1]}
    assert bounds == {round(50 - deviation, 3), round(50 + deviation, 3)}
    apart = [log_of(50.0), {**log_of(50.0), "kl": np.full(2, 90.0)}]
    axes = {a.get_label(): a for a in sweep_curves({"far apart": apart}).axes}
    (band,) = axes["kl"].collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0  # not below it
    assert axes["live"].lines[0].get_ydata().tolist() == [1, 1]
    assert not axes["tc"].lines  # there is none without a discriminator


def markers(axes):
    return [line.get_marker() for line in axes.lines]


def test_a_curve_of_one_point_is_a_marker_in_the_panel_and_in_the_legend():
    logs = {"one row": [log_of(40.0, (100,))], "two rows": [log_of(60.0)]}
    axes = {a.get_label(): a for a in sweep_curves(logs).axes}
    assert markers(axes["recon"]) == markers(axes["legend"]) == ["o", "None"]
    points = {"a": [np.ones((1, 4))], "b": [np.ones((2, 4)) * [[1], [2]]]}
    axes = {a.get_label(): a for a in scores_over_training(points).axes}
    assert markers(axes["legend"]) == ["o", "s"]


def test_scores_on_the_way_are_points_about_their_mean():
    runs = [np.array([[10, 3, 0.5, 60.0]]), np.array([[10, 3, 0.7, 80.0]])]
    panels = {a.get_label(): a for a in scores_over_training({"one": runs}).axes}
    ys = {"FactorVAE score": (0.5, 0.7, 0.6), COLUMN_TITLES["recon"]: (60, 80, 70)}
    for (title, levels), (over, x) in itertools.product(
        ys.items(), {"step": 10, "minutes on one core": 3}.items()
    ):
        axes = panels[f"{title} over {over}"]
        assert axes.get_title("left") == title
        drawn = np.concatenate([line.get_xydata() for line in axes.lines])
        np.testing.assert_allclose(drawn, [(x, y) for y in levels])


def test_long_and_short_runs_are_told_apart_by_a_log_scale_of_plain_numbers():
    steps = {"short": (2500, 20_000), "long": (50_000, 300_000)}
    points = {
        name: [np.array([[step, step / 1000, 0.5, 60.0] for step in each])]
        for name, each in steps.items()
    }
    figure = scores_over_training(points)
    axes = {a.get_label(): a for a in figure.axes}["FactorVAE score over step"]
    figure.canvas.draw()
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.xaxis.get_majorticklocs() if low <= tick <= high]
    assert ticks == [2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000]
    assert axes.xaxis.get_major_formatter()(200_000) == "200,000"


def test_the_lines_of_a_long_name_stay_inside_the_picture():
    name = ", ".join(f"field_{number} 0.0001" for number in range(20))
    points = {name: np.array([[40.0, 0.5]]), "short": np.array([[60.0, 0.75]])}
    for figure in (scores_against_reconstruction(points), sweep_curves({name: [log_of(40.0)]})):
        figure.canvas.draw()
        texts = [text for axes in figure.axes for text in axes.texts]
        legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
        boxes = [shown.get_window_extent() for shown in (*texts, *legends)]
        assert boxes and all(figure.bbox.containsx(box.x1) for box in boxes)
        assert all(figure.bbox.containsy(box.y0) for box in boxes)


def test_mig_is_plotted_where_all_runs_have_it():
    points, titles = plotted_points(RUNS)
    assert titles == ["FactorVAE score"]
    assert {name: rows.tolist() for name, rows in points.items()} == {
        "gamma 1": [[40.0, 0.5], [44.0, 0.7]],
        "gamma 6": [[60.0, 0.75]],
    }
    more = run_of("b1", "gamma 6", factor_vae_score=0.5, recon_loss=50.0, mig=0.25)
    assert plotted_points([*RUNS, more])[1] == ["FactorVAE score"]
    points, titles = plotted_points([more])
    assert titles == ["FactorVAE score", "MIG"]
    assert points["gamma 6"].tolist() == [[50.0, 0.5, 0.25]]


def test_the_page_has_the_table_and_says_what_is_left_out(tmp_path):
    lines = write_sweep_gallery(RUNS[3:], tmp_path, "png", "a sweep", KNOWN)
    assert lines == [
        "score_reconstruction: left out, evaluate.py has not measured factor_vae_score and losses "
        "of any run",
        "sweep_training.png",
        "traversals: left out, no run has a factor_vae_score, which tells the best",
        "index.html",
    ]
    page = (tmp_path / "index.html").read_text()
    assert "Not evaluated." in page and "gamma 1" in page
