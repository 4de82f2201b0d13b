"""What the heads of a model attend to: numbers, tables and a picture from q and k alone, without a map.

`head_report` measures arrays, `Report` holds the result; ``python -m attnkit report`` is the same on the command
line. To add a measure per head, add one row to ``HEAD_MEASURES`` in ``measure.py``: the tables, the JSON file
and the notebook view follow from it.
"""

from attnkit.report.measure import HEAD_MEASURES, Report, head_report

__all__ = ["HEAD_MEASURES", "Report", "head_report"]
