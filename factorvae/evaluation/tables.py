"""Tables of results, for the terminal and for Markdown."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from factorvae.config import EvaluateConfig
from factorvae.evaluation.models import EvaluatedModel, group_by_setting, with_a_seed_twice
from factorvae.evaluation.scores import METRIC_OF, METRICS, SCORES
from factorvae.files import CHECKPOINT_NAME
from factorvae.methods import TOLD_BY_GAMMA
from factorvae.saved_scores import Score
from factorvae.setting import Setting, differing_fields, setting_value, told_fields

SHOWN_SETTINGS = ("data", "beta", "gamma", "steps")
WIDTH = 100


def text_table(models: Sequence[EvaluatedModel], config: EvaluateConfig) -> str:
    """For the terminal."""
    return _table_of_one(models[0], config) if len(models) == 1 else _table_of_many(models, config)


def _table_of_one(model: EvaluatedModel, config: EvaluateConfig) -> str:
    """A line per score, with its standard error and how it was made."""
    trained = model.checkpoint["config"]
    method = "".join(f"{trained[key]}, " for key in _shown_method([model]))
    state = "" if model.checkpoint["finished"] else ", not finished"
    lines = [
        f"{model.path}: {method}beta {trained['beta']:g}, gamma {trained['gamma']:g}, "
        f"seed {trained['seed']}, step {model.checkpoint['step']:,}{state}",
        *_about_data(model, config),
    ]
    title = max(len(score.title) for score in SCORES)
    indent = " " * (title + 24)
    lines += ["", f"{'':{title}}  {'value':>9} {'+-':>8}    how"]
    told = None
    for score in known_scores([model]):
        error = model.errors.get(score.name)
        shown = "" if error is None else score.text(error)
        line = f"{score.title:{title}}  {score.text(model.scores[score.name]):>9} {shown:>8}"
        if model.protocols[score.name] != told:  # once for all scores that are made alike
            told = model.protocols[score.name]
            how = textwrap.wrap(told, WIDTH - len(indent))
            line += "    " + f"\n{indent}".join(how)
        lines.append(line.rstrip())
    if any(score.name in model.errors for score in known_scores([model])):
        of = f"over {config.repeats} repeats" if config.repeats > 1 else "of this sample of points"
        lines += ["", f"+-: standard error {of}"]
    if "losses" in model.details:
        kl = model.details["losses"]["kl_per_latent"]
        values = textwrap.wrap("  ".join(f"{value:.2f}" for value in kl), WIDTH - title - 4)
        lines += ["", f"{'KL of each latent':{title}}  " + f"\n{'':{title}}  ".join(values)]
    lines += _left_out([model], config)
    return "\n".join(lines)


def _table_of_many(models: Sequence[EvaluatedModel], config: EvaluateConfig) -> str:
    """A line per model, and below those of one setting their mean and standard deviation."""
    names = _names(models)
    method, others = _shown_method(models), _other_differences(models)
    rows: list[tuple[str, Callable[[Score], str] | None]] = []
    explained: list[str] = []
    seeds = f", which differ in their seed{_but_some(models)}"
    for group in group_by_setting(models):
        rows.append((_setting_label(group[0].setting, method, others), None))
        rows += [(f"  {names[model.path]}", _cells_of(model)) for model in group]
        if len(group) > 1:
            rows.append((f"  mean of {len(group)} +- deviation", _cells_of_group(group, " +- ")))
            explained = [f"+-: standard deviation over the models of a setting{seeds}"]
    first = max(len(label) for label, cells in rows if cells is not None)
    room = max(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) - first
    widths = {
        score: max(len(score.heading), *(len(cells(score)) for _, cells in rows if cells))
        for score in known_scores(models)
    }
    lines = _about_all_data(models, config)
    for block in _blocks(widths, room):
        lines += ["", " " * first + "".join(f"  {s.heading:>{widths[s]}}" for s in block)]
        for label, cells in rows:
            if cells is not None:
                label = f"{label:{first}}" + "".join(f"  {cells(s):>{widths[s]}}" for s in block)
            lines.append(label)
    lines += ["", *explained, *_protocol_lines(models, known_scores(models), "{heading}: {how}")]
    lines += _left_out(models, config)
    return "\n".join(lines)


def _blocks(widths: Mapping[Score, int], room: int) -> list[list[Score]]:
    """Scores side by side as long as their columns, two blanks before each, fit in `room`."""
    blocks: list[list[Score]] = []
    used = room
    for score, width in widths.items():
        if used + 2 + width > room:
            blocks.append([])
            used = 0
        blocks[-1].append(score)
        used += 2 + width
    return blocks


def markdown_table(models: Sequence[EvaluatedModel], config: EvaluateConfig) -> str:
    """A row per setting: the mean over its models, and their standard deviation.

    Of the scores the headline ones, or all of the metrics that were asked for; the others are in
    the files.
    """
    groups = group_by_setting(models)
    settings = [*_shown_method(models), *SHOWN_SETTINGS, *_other_differences(models)]
    if len({model.setting["data"] for model in models}) == 1:
        settings.remove("data")  # told below
    scores = [score for score in known_scores(models) if score.headline or config.metrics]
    headings = [*settings, "n", *(_heading_with_variant(score, config) for score in scores)]
    lines = [
        "| " + " | ".join(headings) + " |",
        "|" + " --- |" * len(settings) + " ---: |" * (1 + len(scores)),
    ]
    for group in groups:
        cells = _cells_of_group(group, " ± ")
        shown = [setting_value(group[0].setting[key]).replace("|", "\\|") for key in settings]
        row = [*shown, str(len(group)), *(cells(score) for score in scores)]
        lines.append("| " + " | ".join(row) + " |")
    spread = ""
    if any(len(group) > 1 for group in groups):
        spread = "; mean ± standard deviation over them"
    lines += ["", f"n: models of a setting, which differ in their seed{_but_some(models)}{spread}."]
    lines += ["", *(f"- {line}" for line in _about_all_data(models, config))]
    lines += _protocol_lines(models, scores, "- {heading}: {how}")
    return "\n".join(lines)


def _but_some(models: Sequence[EvaluatedModel]) -> str:
    return ", but for some of the same seed" if with_a_seed_twice(models) else ""


def _heading_with_variant(score: Score, config: EvaluateConfig) -> str:
    return (
        f"{score.heading}, {config.dci_estimator}"
        if METRIC_OF[score.name].name == "dci"
        else score.heading
    )


def _cells_of(model: EvaluatedModel) -> Callable[[Score], str]:
    def cell(score: Score) -> str:
        value = model.scores.get(score.name)
        return "-" if value is None else score.text(value)

    return cell


def _cells_of_group(group: Sequence[EvaluatedModel], sign: str) -> Callable[[Score], str]:
    """Mean and deviation; where some models have no such score, of how many it is."""

    def cell(score: Score) -> str:
        values = [model.scores[score.name] for model in group if score.name in model.scores]
        return score.text_of_several(values, len(group), sign) or "-"

    return cell


def known_scores(models: Sequence[EvaluatedModel]) -> list[Score]:
    """Scores that some model has."""
    return [score for score in SCORES if any(score.name in model.scores for model in models)]


def _protocol_lines(
    models: Sequence[EvaluatedModel], scores: Sequence[Score], line: str
) -> list[str]:
    """How each score was made, once for all scores that are made alike."""
    told: dict[str, list[str]] = {}
    for score in scores:
        for how in dict.fromkeys(m.protocols[score.name] for m in models if score.name in m.scores):
            told.setdefault(how, []).append(score.heading)
    return [line.format(heading=", ".join(headings), how=how) for how, headings in told.items()]


def _about_data(model: EvaluatedModel, config: EvaluateConfig) -> list[str]:
    dataset, held_out = model.dataset, ""
    if any(METRICS[name].needs == "split" for name in model.details):
        held_out = f" and {model.num_held_out:,} held out"
    lines = [
        f"{dataset.name}, {dataset.source}: {len(dataset):,} images, "
        f"{model.num_encoded:,} encoded; {model.num_points:,} points{held_out}, "
        f"seed {config.seed}, repeats {config.repeats}"
    ]
    if config.factors is not None:
        lines.append(f"factors scored: {', '.join(config.factors)}; the others vary at random")
    trained_on = model.checkpoint["dataset"]
    num_images = trained_on.get("num_images", len(dataset))
    then = trained_on["name"], trained_on["source"], num_images
    if (dataset.name, dataset.source, len(dataset)) != then:
        told = f"{trained_on['name']}, {trained_on['source']}"
        told += f", {num_images:,} images" if num_images != len(dataset) else ""
        lines.append(f"trained on other images: {told}")
    return lines


def _about_all_data(models: Sequence[EvaluatedModel], config: EvaluateConfig) -> list[str]:
    """The same of several models, without what repeats itself."""
    return list(dict.fromkeys(line for model in models for line in _about_data(model, config)))


def _left_out(models: Sequence[EvaluatedModel], config: EvaluateConfig) -> list[str]:
    """Why metrics that were asked for are not there; UDR must be asked for by its name."""
    reasons: dict[str, list[str]] = {}
    wanted = config.metrics or [name for name in METRICS if name != "udr"]
    for model in models:
        for name, why in model.missing.items():
            names = reasons.setdefault(why, [])
            if name in wanted and name not in names:
                names.append(name)
    lines = [f"left out: {', '.join(names)}: {why}" for why, names in reasons.items() if names]
    return ["", *lines] if lines else []


def _names(models: Sequence[EvaluatedModel]) -> dict[Path, str]:
    """The run folder's name or the file's, or the whole path where that is ambiguous."""
    short = {
        m.path: m.path.parent.name if m.path.name == CHECKPOINT_NAME else m.path.name
        for m in models
    }
    counts = Counter(short.values())
    return {path: name if name and counts[name] == 1 else str(path) for path, name in short.items()}


def _shown_method(models: Sequence[EvaluatedModel]) -> list[str]:
    """The field, but where beta and gamma say all."""
    methods = {model.setting["method"] for model in models}
    return [] if methods <= TOLD_BY_GAMMA else ["method"]


def _other_differences(models: Sequence[EvaluatedModel]) -> list[str]:
    """Fields of the settings, but those always shown, in which some models differ.

    Where models were trained on other data than they are measured on, those are told first.
    """
    settings = [model.setting for model in models]
    differing = differing_fields(settings, (*SHOWN_SETTINGS, "method"))
    if any(model.setting["trained on"] != model.setting["data"] for model in models):
        differing = ["trained on", *(key for key in differing if key != "trained on")]
    return differing


def _setting_label(setting: Setting, method: Sequence[str], others: Sequence[str]) -> str:
    """Data, method where it is shown, beta, gamma, what differs besides, and steps."""
    parts = [setting[key] for key in ("data", *method)]
    parts += told_fields(setting, ("beta", "gamma", *others))
    return "; ".join([*parts, f"{setting['steps']:,} steps"])
