"""Command line of attnkit: ``python -m attnkit JOB``.

A job is a module with ``add_parser(subparsers)``, which sets ``run``; to add one, add it to ``_JOBS``.
"""
from __future__ import annotations

import argparse
import os
import sys

from attnkit.report import command as report
from attnkit.report.inputs import InputError

_JOBS = (report,)


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like every other error of a job; the usage is one ``--help`` away."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(arguments=None):
    """Run one job and return its exit code: 0, or 2 if something about the input is wrong."""
    parser = _Parser(prog="attnkit", description="Exact attention and what it looks at, on plain NumPy arrays.")
    subparsers = parser.add_subparsers(dest="job", metavar="JOB", required=True)
    for job in _JOBS:
        job.add_parser(subparsers)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        subparsers.choices[options.job].error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except InputError as error:
        # File names and arrays' messages may hold line breaks; the promise is one line.
        print(f"attnkit {options.job}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe (head, less) left: not an error, but Python must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
