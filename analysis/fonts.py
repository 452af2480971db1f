"""Japanese glyphs wherever the report is read: IPAexGothic, cut down to the characters used.

The font comes with matplotlib-fontja; the IPA Font License allows embedding it in a document.
"""

from __future__ import annotations

import base64
import io
from importlib import resources
from pathlib import Path

FAMILY = "IPAexGothic"


def font_file() -> Path:
    """Path of the packaged font."""
    return Path(str(resources.files("matplotlib_fontja") / "fonts" / "ipaexg.ttf"))


def embedded_font(text: str) -> str:
    """Return a WOFF2 of exactly the characters of `text`, base64; equal characters give equal bytes."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    options = subset.Options()
    options.flavor = "woff2"
    options.layout_features = []
    options.hinting = False
    options.desubroutinize = True
    options.notdef_outline = True
    options.recalc_timestamp = False
    font = TTFont(font_file(), recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=sorted({ord(c) for c in text} | set(range(0x20, 0x7F))))
    subsetter.subset(font)
    buffer = io.BytesIO()
    font.flavor = "woff2"
    font.save(buffer, reorderTables=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
