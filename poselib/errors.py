"""The one error that users see as a single line."""


class InputError(Exception):
    """Something outside the program is wrong: a file, a setting, a folder.

    The message is one line that says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with 1 (`--debug` prints the traceback); library users catch it as any exception.
    """
