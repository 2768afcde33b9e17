"""The command line, built from the fields of a config.

What the user leaves unset is filled from the method's defaults, or else the recipe's (--preset), or
else the dataset's. Where flags were given several values, `parse_sweep` makes a config of each
combination.
"""

import argparse
import dataclasses
import itertools
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence

from factorvae.config import DATASET_DEFAULTS, RECIPES, Config, TrainConfig, as_given, flag_of
from factorvae.errors import UserError
from factorvae.methods import METHOD_SETTINGS, METHODS, Method, settings_of_others

C = typing.TypeVar("C", bound=Config)
DECIDE_DEFAULTS = ("preset", "dataset", "method")  # fields that fill others
MOST_RUNS = 10_000  # of a sweep: more are a slip of the hand


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are a UserError of one line."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(f"{message} (--help lists the flags)")


NamesOf = Mapping[str, Callable[[], Sequence[str]]]  # what a field may name, asked for --help only


def parse(
    cls: type[C],
    description: str,
    argv: Sequence[str] | None = None,
    names_of: NamesOf = types.MappingProxyType({}),
) -> C:
    """The config that a command line asks for; its flags take one value each.

    description: for --help, of which its first line is shown. names_of: by field, what gives the
    names that --help lists of it.

    Raises:
        UserError: an unknown flag, or a value that is no number or out of range.
    """
    (config,) = parse_sweep(cls, description, argv, names_of)
    return config


def parse_sweep(
    cls: type[C],
    description: str,
    argv: Sequence[str] | None = None,
    names_of: NamesOf = types.MappingProxyType({}),
) -> list[C]:
    """A config of each combination of the values given to the flags that take several.

    The flag that comes last in the class changes fastest; a value given twice counts once.
    Arguments and errors are those of `parse`.
    """
    if argv is None:
        argv = sys.argv[1:]
    shown = _defaults_for_help(cls, argv) if {"-h", "--help"} & {*argv} else None
    parser = Parser(description=description.partition("\n")[0], allow_abbrev=False)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in dataclasses.fields(cls):
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        argument = _argument(field, shown)
        if shown and field.name in names_of:
            argument["help"] += f": {', '.join(names_of[field.name]())}"
        groups[group].add_argument(flag_of(field), **argument)
    given = vars(parser.parse_args(argv))
    several = {
        field.name: dict.fromkeys(itertools.chain.from_iterable(given[field.name]))
        for field in dataclasses.fields(cls)
        if field.metadata["several"] and isinstance(given.get(field.name), list)
    }
    number = math.prod(map(len, several.values()))
    if number > MOST_RUNS:
        raise UserError(f"these flags make a sweep of {number:,} runs; {MOST_RUNS:,} are the most")
    configs = [
        _filled(cls, {**given, **dict(zip(several, values, strict=True))})
        for values in itertools.product(*several.values())
    ]
    if cls is not TrainConfig:
        return configs
    _check_method_flags(given, configs)
    return list(dict.fromkeys(configs))  # one where a flag is no setting of the method


def _defaults_for_help(cls: type[C], argv: Sequence[str]) -> C:
    """The config of a command line with nothing but its --preset, --dataset and --method."""
    parser = Parser(add_help=False, allow_abbrev=False)
    for field in dataclasses.fields(cls):
        if field.name in DECIDE_DEFAULTS:
            parser.add_argument(flag_of(field), default=argparse.SUPPRESS)
    given, _ = parser.parse_known_args(argv)
    return _filled(cls, vars(given))


def _filled(cls: type[C], given: dict[str, object]) -> C:
    """The config of the values given, or else the method's, the recipe's or the dataset's.

    A setting of other methods only is as if it were not given.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    kind = given.get("dataset", "").partition(":")[0]  # folder of folder:PATH
    defaults = {**DATASET_DEFAULTS.get(kind, {}), **RECIPES.get(given.get("preset"), {})}
    if given.get("first_latents") == 0:  # none waits, and so none is added
        defaults.pop("add_at", None)
    if "method" in known:
        name = given.get("method", cls.method)
        method = METHODS.get(name, Method())  # the check below tells
        defaults = {**defaults, **method.defaults}
        given = {n: v for n, v in given.items() if n not in settings_of_others(name)}
    return cls(**{**{n: v for n, v in defaults.items() if n in known}, **given})


def _check_method_flags(given: dict[str, object], configs: Sequence[TrainConfig]) -> None:
    """Raise UserError for a setting that none of the methods has."""
    methods = list(dict.fromkeys(config.method for config in configs))
    used = {name for method in methods for name in METHODS[method].settings}
    for name in given:
        if name in METHOD_SETTINGS - used:
            raise UserError(f"--{name} is no setting of --method {' '.join(methods)}")


def _argument(field: dataclasses.Field, shown: Config | None = None) -> dict[str, object]:
    """What `add_argument` takes for a field; an unset flag leaves no trace in the namespace.

    shown: has the defaults that the help tells, where they are not the field's own.
    """
    argument: dict[str, object] = {"dest": field.name, "default": argparse.SUPPRESS}
    argument["help"] = field.metadata["help"]
    if field.metadata["several"]:
        argument["help"] += "; several make a sweep"
    if field.type is bool:
        of_recipe = any(field.name in recipe for recipe in RECIPES.values())
        kind = argparse.BooleanOptionalAction if of_recipe else "store_true"
        return {**argument, "action": kind}
    told = shown and field.name not in DECIDE_DEFAULTS
    default = getattr(shown, field.name) if told else field.default
    if default is not None:
        argument["help"] += f" (default: {as_given(default)})"
    base = field.type
    if isinstance(base, types.UnionType):  # int | None
        base = typing.get_args(base)[0]
    if typing.get_origin(base) is tuple:  # tuple[int, ...]
        argument["nargs"] = "+"
        base = typing.get_args(base)[0]
    choices = field.metadata["choices"]
    kind = "|".join(map(str, choices)) if choices else base.__name__
    if field.metadata["several"]:
        return {
            **argument,
            "nargs": "+",
            "type": {int: _integers, float: _floats, str: _strings}[base],
            "metavar": "int|first-last" if base is int else kind,
        }
    return {**argument, "type": base, "metavar": kind}


def _integers(text: str) -> Sequence[int]:
    """'7' is 7, and '0-9' is 0, 1, ... 9."""
    ends = re.fullmatch(r"(\d+)-(\d+)", text)
    if not ends:
        return (_number(int, text),)
    first, last = map(int, ends.groups())
    if not first <= last < first + MOST_RUNS:
        raise argparse.ArgumentTypeError(f"invalid range: {text!r}")
    return range(first, last + 1)


def _floats(text: str) -> Sequence[float]:
    return (_number(float, text),)


def _strings(text: str) -> Sequence[str]:
    return (text,)


def _number(kind: type, text: str) -> float:
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"invalid {kind.__name__} value: {text!r}") from error
