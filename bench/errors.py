"""The one error of the benchmarks: whatever makes a figure impossible or worthless.

A run that lost a frame or could not start a process ends with it; it never prints a row that can't be trusted.
"""


class BenchError(Exception):
    """Says in one sentence why no figure can be given; the command line prints it and exits with 1."""

    @property
    def brief(self) -> str:
        """One line: what is wrong and, if a log is quoted, its last words."""
        lines = str(self).splitlines()
        return ": ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else ""
