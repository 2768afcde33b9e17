"""How a user's mistake is told: one clear line and exit code 2, never a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right; its text is one line that says what and how."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """`text` on one line that does nothing to a terminal: control characters as escapes.

    So are those that turn the direction of writing, and bytes that are no UTF-8; a file's name may
    hold them all.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def run_script(main: Callable[[], int | None]) -> int:
    """Call a script's `main`; 2 and one line on stderr for a UserError."""
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
