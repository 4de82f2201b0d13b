"""The numerics of this machine are those of every other one: the fingerprint stands in the change log.

A change of any bit of any result changes it. That may be wanted; then the log says so. It may not differ between machines,
instruction sets or compilers.
"""

import re
from pathlib import Path

from attnkit._fingerprint import fingerprint

CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


def test_the_fingerprint_is_that_of_the_newest_entry():
    newest = re.search(r"fingerprint `([0-9a-f]{64})`", CHANGELOG.read_text(encoding="utf-8"))
    assert newest is not None, "no fingerprint in CHANGELOG.md"
    assert fingerprint() == newest.group(1)
