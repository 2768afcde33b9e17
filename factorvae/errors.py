"""How a user's mistake is told: one clear line and exit code 2, never a traceback."""

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable

LONGEST_WORD = 300  # characters; a path that is longer is known by its ends
LONGEST_LINE = 2000


class UserError(Exception):
    """Something the user can put right; its text is one line that says what and how.

    What it quotes may be of any length and hold any characters: see `printable`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class BadCheckpoint(UserError):
    """A checkpoint that cannot be read, or is none of this project or version."""


def printable(text: str) -> str:
    """A text from outside as one line that a terminal, a log and a picture can show.

    Control characters, those that turn the direction of writing, and bytes that are no UTF-8,
    become escapes such as \\x1b; words and lines without end lose their middle.
    """
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _ends(word[0], LONGEST_WORD), text)
    text = _ends(text, LONGEST_LINE)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _ends(text: str, most: int) -> str:
    """The text, or, of a longer one, its beginning, how much is left out, and its end."""
    if len(text) <= most:
        return text
    kept = most // 3
    return f"{text[:kept]}…({len(text) - 2 * kept:,} more)…{text[-kept:]}"


def run_script(main: Callable[[], int | None]) -> int:
    """Call a script's `main`; 2 and one line on stderr for a UserError."""
    _make_writable()
    try:
        code = main() or 0
        sys.stdout.flush()  # now: what cannot be written at exit is a traceback
        return code
    except UserError as error:
        _tell(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except BrokenPipeError:  # `| head` has read enough
        _drop_stdout()
        return 128 + signal.SIGPIPE
    except OSError as error:  # whatever is full or has gone where none is foreseen: stdout, say
        _drop_stdout()
        where = "" if error.filename is None else f"{error.filename}: "
        _tell(f"error: {printable(where)}{error.strerror or error}")
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        told = printable(str(error).partition("\n")[0])
        _tell(f"error: out of memory: {told}" if told else "error: out of memory")
        return 2


def _make_writable() -> None:
    """Where a stream is closed, what goes there is dropped; what it cannot encode is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_out_of_memory(error: Exception) -> bool:
    """Of Python, of numpy, of torch on CUDA, or of torch on the CPU, which tells in words only."""
    torch = sys.modules.get("torch")  # not imported for this
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "can't allocate memory" in str(error)
    )


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone
        print(line, file=sys.stderr, flush=True)


def _drop_stdout() -> None:
    """Have what is still unwritten go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
