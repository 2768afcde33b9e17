"""A short selection of the campaign; the whole is `python -m tests.faults`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults import disk, files, flags, kill
from tests.faults.child import in_child
from tests.faults.crafted import CRAFTED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
ROOT = Path(__file__).parents[2]
SLOW = {"npz-bomb", "npz-of-many", "npz-of-large-images", "npz-bzip2", "npz-lzma"}
SLOW |= {"zip-of-a-large-member", "output-elsewhere"}
SLOW |= {name for name in CRAFTED if name.endswith(("-drawn", "-evaluated"))}


def campaign(*arguments):
    """`python -m tests.faults` to its end: its exit code, and what it prints."""
    command = [sys.executable, "-m", "tests.faults", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout


def assert_survived(*cases):
    code, out = campaign(*(word for case in cases for word in ("--case", case)))
    assert code == 0, out
    tried = [int(line.split()[1]) for line in out.splitlines()[1:]]
    assert sum(tried) == len(cases)


# What the campaign takes for a failure


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def fail():
    raise ValueError("of the program")


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: 1, "exit code 1"),
        (lambda: 2, "exit code 2 and 0 lines of an error"),
        (crash, "SIGSEGV"),
        (fail, "a traceback: ValueError: of the program"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_what_is_a_failure(work, told):
    assert told in in_child(work).fault()
    assert in_child(lambda: 0).fault() is None


def test_a_child_that_hangs_or_eats_the_memory_is_ended():
    def hang():
        while True:
            pass

    assert "SIGPROF" in in_child(hang, seconds=0.2).fault()
    eaten = in_child(lambda: bytearray(1 << 28), memory=1 << 27)
    assert (eaten.code, eaten.err) == (2, "error: out of memory\n")


def test_mutations_are_made_by_their_number():
    data = bytes(range(256)) * 8
    first, again, other = (files.mutated(data, np.random.default_rng(n)) for n in (1, 1, 2))
    assert first == again != other
    assert len({files.mutated(data, np.random.default_rng(n)) for n in range(200)}) > 150


# The selection


@pytest.mark.parametrize("script", flags.LINES)
def test_bad_command_lines(script):
    cases = [case for case in flags.cases(0) if case.split(":")[1] == script]
    flags.prepare(cases)
    faults = {case: flags.run_here(case) for case in cases}
    assert {case: fault for case, fault in faults.items() if fault} == {}


def test_the_table_has_two_hundred_lines_each_with_words():
    lines = [line.rpartition(" | ") for table in flags.LINES.values() for line in table]
    assert len(lines) >= 200
    assert all(command and words for command, _, words in lines)


@pytest.mark.parametrize("name", files.FORMATS)
def test_mutated_files(name):
    cases = [f"files:{name}:{number}" for number in range(3)]
    files.prepare(cases)
    faults = {case: files.run_here(case) for case in cases}
    assert {case: fault for case, fault in faults.items() if fault} == {}


@pytest.mark.parametrize("name", sorted(CRAFTED.keys() - SLOW))
def test_crafted_files(name):
    files.prepare([f"files:crafted:{name}"])
    assert files.run_here(f"files:crafted:{name}") is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
@pytest.mark.parametrize(
    ("part", "case"), [(kill, "kill:train:replace:3"), (disk, "disk:train:full:300")]
)
def test_a_kill_and_a_full_disk(part, case):
    """Without a command of its own, which would import torch again."""
    assert list(part.run([case])) == [(case, None)]


@pytest.mark.slow
def test_more_kills_and_full_disks():
    assert_survived(
        *(f"kill:train:{name}" for name in ("term", "hup")),
        *("kill:train:write:500", "kill:data:replace:1", "kill:train:unlink:0"),
        *("disk:train:locked:1", "disk:data:readonly:2", "disk:train:vanished:9"),
        *("kill:train:moment:0", "kill:sweep:replace:5"),
        *("disk:evaluate:full:0", "disk:visualize:full:1"),
        *("disk:output:broken:2", "disk:archive:full:5"),
        *("long:two:1", "long:threads:2"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_crafted_files_that_take_time(name):
    assert_survived(f"files:crafted:{name}")


@pytest.mark.slow
def test_every_part_has_cases_and_the_table_tells_of_them():
    code, out = campaign("--minutes", 0.05, "--seed", 3)
    assert code == 0, out
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        *("files", "flags", "kill", "disk", "long")
    ]
