"""How a user's mistake is told: one clear line and exit code 2, never a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right; its text is one line that says what and how."""


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
