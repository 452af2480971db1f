"""label-studio-ml, imported without torch.

The library imports torch for a process pool that is not used here; without it a web worker starts
in a second and takes a third of the memory.
"""

from __future__ import annotations

import sys

_absent = "torch" not in sys.modules
if _absent:
    sys.modules["torch"] = None  # type: ignore[assignment]  # "not installed"; the library has a way without it
try:
    from label_studio_ml import api
    from label_studio_ml.model import LabelStudioMLBase
finally:
    if _absent:
        del sys.modules["torch"]

__all__ = ["LabelStudioMLBase", "api"]
