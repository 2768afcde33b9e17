"""How a user's mistake is told."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from factorvae import errors
from factorvae.errors import UserError, printable, run_script

ROOT = Path(errors.__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("data/Bilder für Ölöfen 鳥.png", "data/Bilder für Ölöfen 鳥.png"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("one\ntwo\r\tthree\0", r"one\ntwo\r\tthree\x00"),
        ("\x9b31m\u202egnp.\u2028", r"\x9b31m\u202egnp.\u2028"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
        (r"C:\new 'x'", r"C:\new 'x'"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    assert str(UserError(text)) == f"{UserError(text)}" == shown


def test_a_mistake_is_one_line_on_stderr_and_exit_code_two(capsys):
    def main():
        raise UserError("no folder \x1b[31m\nred")

    assert run_script(main) == 2
    assert capsys.readouterr() == ("", "error: no folder \\x1b[31m\\nred\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_end_no_script(closed):
    script = """import sys
from factorvae.errors import run_script
def main():
    print("told"); print("told", file=sys.stderr)
    return 3
sys.exit(run_script(main))"""
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {closed}"
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True).returncode == 3


def test_what_a_stream_cannot_encode_is_escaped():
    script = "from factorvae.errors import run_script; run_script(lambda: print('a \u00b1 b'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a \\xb1 b\n", "")


@pytest.mark.parametrize(
    "work", [lambda: torch.empty(1 << 55), lambda: np.empty(1 << 55), lambda: bytearray(1 << 55)]
)
def test_too_little_memory_is_one_line(capsys, work):
    assert run_script(work) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory") and error.count("\n") == 1


def test_too_little_memory_of_a_device_is_one_line(capsys):
    def work():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    assert run_script(work) == 2
    told = "error: out of memory: CUDA out of memory. Tried to allocate 2 GiB.\n"
    assert capsys.readouterr().err == told


def test_another_error_of_the_program_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="a bug"):
        run_script(lambda: (_ for _ in ()).throw(RuntimeError("a bug")))
