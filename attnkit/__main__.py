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
        return _fail(options.job, error)
    except BrokenPipeError:
        # The reader of a pipe (head, less) left; that is no error.
        _drop_stdout()
        return 0
    except OSError as error:
        # Standard output itself cannot be written to, a full disk for example.
        _drop_stdout()
        return _fail(options.job, f"standard output: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130


def _fail(job, error):
    # File names and messages about arrays may hold line breaks; the promise is one line.
    print(f"attnkit {job}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _drop_stdout():
    """Send what is still buffered to nowhere, so that Python does not fail again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
