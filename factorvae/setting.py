"""The setting of a training: what models that differ by their seed only have in common."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields

from factorvae.config import TrainConfig, as_given, unknown_settings
from factorvae.methods import METHODS, SETTINGS_OF_SOME, idle_settings

Setting = Mapping[str, object]  # by name; it has method, beta, gamma and steps among others


def setting_of(checkpoint: dict) -> dict[str, object]:
    """The data of the training with its size, every field that is of its setting, and its steps.

    A setting that says nothing about a model of its method is None.
    """
    known, trained = checkpoint["dataset"], checkpoint["config"]
    idle = idle_settings(trained["method"])
    values = {
        f.name: None if f.name in idle else trained.get(f.name, f.default)
        for f in fields(TrainConfig)
        if f.metadata["setting"]
    }
    data = f"{known['name']}, {known['source']}"
    unknown = [f"{name} {as_given(value)}" for name, value in unknown_settings(trained).items()]
    another = {"another version's": ", ".join(unknown) or None}
    images = {"images": known.get("num_images")}  # a set of one's own may have grown since
    return {"trained on": data, **images, **values, **another, "steps": checkpoint["step"]}


def order_of(setting: Setting) -> tuple:
    """What settings are sorted by: their method, and then all their values."""
    return [*METHODS].index(setting["method"]), _order(setting.values())


def _order(values: Iterable[object]) -> list[tuple]:
    """To sort by: numbers by their size, before words; what is not given comes first."""
    return [
        (0, 0.0, "")
        if value is None
        else (1, float(value), "")
        if isinstance(value, int | float)
        else (2, 0.0, str(value))
        for value in values
    ]


def differing_fields(settings: Sequence[Setting], known: Collection[str]) -> list[str]:
    """The fields in which some settings differ, without those of `known`, which are told anyway.

    Of the settings of some methods only, those in which settings of the same method do.
    """

    def values(key: str) -> list[set]:
        if key not in SETTINGS_OF_SOME:
            return [{setting[key] for setting in settings}]
        methods = {setting["method"] for setting in settings}
        return [{s[key] for s in settings if s["method"] == one} for one in methods]

    keys = [key for key in settings[0] if key not in known]
    return [key for key in keys if any(len(those) > 1 for those in values(key))]


def told_fields(setting: Setting, names: Iterable[str]) -> list[str]:
    """'lr 0.001', for each of the fields that the setting has a value of."""
    return [f"{n} {setting_value(setting[n])}" for n in names if setting[n] is not None]


def setting_value(value: object) -> str:
    """As people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value is None:
        return "-"
    # of so many digits that two settings never look the same
    return f"{value:.15g}" if isinstance(value, float) else as_given(value)
