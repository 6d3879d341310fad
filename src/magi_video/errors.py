"""The one exception that means "the user can mend this": the command line prints its one line and exits with 1."""


class MagiError(Exception):
    """A mistake in the input (a file, a setting, a checkpoint), told in one line: what was wrong, what was expected."""

    exit_code = 1
    """What the command line exits with."""
