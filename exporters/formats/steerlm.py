"""SteerLM-style text: the attribute pair as text inside every turn of Aku, right before what is said.

The text is what the prompt format `steerlm` shows a model, with `</s>` for the tokenizer's end token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dialogue import Dialogue, files
from dialogue.rendering import template, to_messages
from exporters.splits import SPLITS
from exporters.versions import DatasetVersion, read_records

END = "</s>"


def write(version: DatasetVersion, folder: Path) -> dict[str, int]:
    """Write rows `{"id": …, "text": …}` by split as JSONL; returns rows by split."""
    return {
        split: files.write_jsonl(
            folder / f"{split}.jsonl", _rows(Dialogue.from_dict(record) for record in read_records(version.file(split)))
        )
        for split in SPLITS
    }


def _rows(dialogues: Iterable[Dialogue]) -> Iterator[dict[str, str]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = template("steerlm")
    for dialogue in dialogues:
        messages = to_messages(dialogue.context, dialogue.conversation, dialogue.attribute)
        texts, _ = render_jinja_template(conversations=[messages], chat_template=source, eos_token=END)
        yield {"id": dialogue.id, "text": texts[0]}
