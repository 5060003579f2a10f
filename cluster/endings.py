"""How a rank ends, in exit codes that a batch script can act on.

`srun` returns the highest code of its tasks, so what would only happen again outweighs what may go well next time.
"""

from typing import Final

from poselib.errors import InputError

TRY_AGAIN: Final = 75
NEVER_AGAIN: Final = 76
FINAL_CODES: Final = frozenset({1, 2, NEVER_AGAIN})
"""A new start would end the same way. Everything else (a signal, a lost node, a bug) is worth another one."""


class TryAgain(InputError):
    """A new start may well not meet this again: a lost rank, a full disk, a hang."""

    exit_code = TRY_AGAIN


class NeverAgain(InputError):
    """A new start would end the same way, or must not be: a wrong setting, damaged data, a newer start at work."""

    exit_code = NEVER_AGAIN
