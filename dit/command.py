"""What every command does with an error."""

import sys
from collections.abc import Callable


def exit_status(command: Callable[[], None], stopped: str) -> int:
    """Run a command: 0 if it ends well, 1 after an error that explains itself, 130 after Ctrl-C.

    stopped: what Ctrl-C has left behind, for the reader.
    """
    try:
        command()
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    return 0
