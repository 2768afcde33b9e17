"""Kill it, starve it, feed it rubbish: the campaign behind docs/reliability.md.

python -m tests.faults --minutes 15 --seed 1
python -m tests.faults --minutes 2 --seed 1 --only files,flags
python -m tests.faults --case files:png:10017 --case kill:train:replace:3
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from types import ModuleType

PARTS = ("files", "flags", "kill", "disk", "long")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15, help="for all parts together")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn at random")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--case", action="append", help="nothing but this one; again for more")
    flags = parser.parse_args(argv)
    parts = flags.only.split(",")
    for part in parts:
        if part not in PARTS:
            parser.error(f"no part {part!r}: they are {', '.join(PARTS)}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # before torch and numpy begin threads: children are forked

    if flags.case:
        parts = list(dict.fromkeys(case.partition(":")[0] for case in flags.case))
    failures, rows = [], []
    end = time.monotonic() + 60 * flags.minutes
    for number, part in enumerate(parts):
        if flags.case:
            cases, seconds = iter([c for c in flags.case if c.partition(":")[0] == part]), None
        else:  # what a part leaves of its share is for those that follow
            cases = module_of(part).cases(flags.seed)
            seconds = (end - time.monotonic()) / (len(parts) - number)
        tried, wrong = try_out(part, cases, seconds)
        rows.append((part, tried, tried - len(wrong)))
        failures += wrong

    print(f"{'part':8} {'tried':>8} {'survived':>9}")
    for part, tried, survived in rows:
        print(f"{part:8} {tried:8,} {survived:9,}")
    for case, fault in failures:
        print(f"python -m tests.faults --case {case}   # {fault}")
    return 1 if failures else 0


def module_of(part: str) -> ModuleType:
    """The module of a part: `cases(seed)` names its cases, `run(cases)` says what is wrong."""
    name = {"long": "long_run"}.get(part, part)
    return importlib.import_module(f"tests.faults.{name}")


def try_out(
    part: str, cases: Iterator[str], seconds: float | None
) -> tuple[int, list[tuple[str, str]]]:
    """Run cases until there are no more or the time is over; how many, and those that failed."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread beside those that fork
    deadline = None if seconds is None else time.monotonic() + seconds
    failures: list[tuple[str, str]] = []
    tried = 0

    def in_time() -> Iterator[str]:
        for number, case in enumerate(cases):
            if deadline is not None and number and time.monotonic() > deadline:
                return
            yield case

    with tqdm(desc=part, unit=" cases") as bar:
        for case, fault in module_of(part).run(in_time()):
            tried += 1
            bar.update()
            if fault is not None:
                failures.append((case, fault))
                bar.write(f"{case}: {fault}", file=sys.stderr)
            bar.set_postfix_str(f"{len(failures)} failed")
    return tried, failures


if __name__ == "__main__":
    sys.exit(main())
