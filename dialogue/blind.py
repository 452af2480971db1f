"""The blind arm: the stable share of tasks whose annotators never see a draft.

The ML backend leaves these tasks undrafted and the analysis compares with them, so both ask here.
"""

from __future__ import annotations

import hashlib


def is_blind(project: int | str | None, task: int | str | None, share: float) -> bool:
    """Tell whether a task belongs to the blind arm: always the same answer for one task.

    The hash of "project/task" (64 bits of SHA-256, as a fraction of 1) lies below `share`.  So a
    larger share keeps every task that a smaller one had, and no list has to be stored.
    """
    digest = hashlib.sha256(f"{project}/{task}".encode("utf-8", "surrogatepass")).hexdigest()
    return int(digest[:16], 16) / 16**16 < share
