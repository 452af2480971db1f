"""Opening turns from helpers: a Google Form that asks for them, and the answers' way into cards.

A helper answers 10-15 prompts 「○○について会話を始めてください。」; each answer becomes the first User
turn of a card.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import html
import io
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dialogue.errors import FileError
from dialogue.genres import Taxonomy
from dialogue.records import MAX_TURN_LENGTH, clean_text, has_control_characters
from dialogue.text import personal_data

PROMPT = "「{topic}」について会話を始めてください。"
CONSENT = (
    "会話データづくりへのご協力のお願いです。いただいた文は、雑談をする小さな言語モデルの学習データの書き出しとして使い、"
    "データとして公開することがあります。名前・連絡先・勤務先など、個人がわかることは書かないでください。"
    "答えたくない質問は空欄のままでかまいません。送信をもって、この使い方への同意とみなします。"
)
_TIME_COLUMNS = ("タイムスタンプ", "timestamp")
_AUTHOR_COLUMNS = ("メールアドレス", "email address", "ユーザー名", "username")
_REPEATED = re.compile(r"（その\d+）$")
_TOPIC = re.compile(r"「?([^「」]+?)」?について会話を始めてください")


@dataclasses.dataclass(frozen=True, slots=True)
class Opener:
    """One usable answer: its id (a hash of prompt, text and author), topic, text, and author as a pseudonym."""

    id: str
    topic: str | None
    text: str
    author: str


@dataclasses.dataclass(frozen=True, slots=True)
class SetAside:
    """One answer that is not used, with the row it stands in and why."""

    row: int
    topic: str | None
    reason: str


def choose_topics(written: Mapping[str, int], taxonomy: Taxonomy, n: int, seed: int = 0) -> list[str]:
    """Choose the `n` topics with the fewest dialogues so far; ties in seeded random order.

    More prompts than topics go round again.
    """
    order = list(taxonomy.names)
    random.Random(seed).shuffle(order)  # noqa: S311 - an order of questions, no secret
    ranked = sorted(order, key=lambda topic: written.get(topic, 0))
    return [ranked[i % len(ranked)] for i in range(n)]


def apps_script(topics: Sequence[str]) -> str:
    """Return a Google Apps Script that creates the form; paste it at script.google.com and run `createForm`."""
    prompts = json.dumps([PROMPT.format(topic=topic) for topic in _distinct(topics)], ensure_ascii=False, indent=2)
    return f"""/** Paste into a new project at script.google.com, run createForm; the log shows the two links. */
function createForm() {{
  var form = FormApp.create('雑談の書き出し');
  form.setDescription({json.dumps(CONSENT, ensure_ascii=False)});
  form.setCollectEmail(false);
  form.setProgressBar(true);
  var prompts = {prompts};
  prompts.forEach(function (prompt) {{
    form.addParagraphTextItem()
      .setTitle(prompt)
      .setHelpText('話しかける最初のひとことを、ふだんの言葉で1〜2文。')
      .setRequired(false);
  }});
  Logger.log('回答用: ' + form.getPublishedUrl());
  Logger.log('編集用: ' + form.getEditUrl());
}}
"""


def printable_list(topics: Sequence[str]) -> str:
    """Return the same questions as an HTML page to print."""
    rows = "\n".join(f"<li>{html.escape(PROMPT.format(topic=topic))}<div></div></li>" for topic in _distinct(topics))
    return f"""<!doctype html>
<html lang="ja"><meta charset="utf-8"><title>雑談の書き出し</title>
<style>body{{font:12pt/1.7 serif;max-width:42em;margin:2em auto}}
li{{margin:0 0 1em}}
li div{{border-bottom:1px solid #999;height:3em}}</style>
<h1>雑談の書き出し</h1>
<p>{html.escape(CONSENT)}</p>
<p>話しかける最初のひとことを、ふだんの言葉で1〜2文。</p>
<ol>
{rows}
</ol></html>
"""


def read_answers(path: Path, salt: str) -> tuple[list[Opener], list[SetAside]]:
    """Read what Google Forms or Sheets exports: UTF-8 (with or without BOM), quoted line breaks, blank answers.

    Every column whose head asks to begin a conversation is a question, so later added ones are found
    too.  Authors are told apart by their address where the form collected it, else by the time stamp
    (Japanese or English), and become salted hashes.  Answers that hold personal data are set aside.

    Raises `FileError` if the file is no such export.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file; download the answers as CSV first.") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8; save it from Google Sheets with File → Download → CSV.") from error
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise FileError(f"{path}: no valid CSV ({error}); download the answers again.") from error
    if not rows:
        raise FileError(f"{path}: is empty; download the answers again.")
    head = [clean_text(cell) for cell in rows[0]]
    questions = {i: _REPEATED.sub("", match[1]) for i, cell in enumerate(head) if (match := _TOPIC.search(cell))}
    if not questions:
        raise FileError(f"{path}: no column asks 「○○について会話を始めてください。」; is this the form's export?")
    named = [i for i, cell in enumerate(head) if cell.lower() in _AUTHOR_COLUMNS]
    stamped = [i for i, cell in enumerate(head) if cell.lower() in _TIME_COLUMNS]
    who = next(iter(named + stamped), None)
    openers: dict[str, Opener] = {}
    aside: list[SetAside] = []
    for number, row in enumerate(rows[1:], 2):
        person = row[who] if who is not None and who < len(row) else number
        author = hashlib.sha256(f"{salt}|{person}".encode()).hexdigest()[:8]
        for column, topic in questions.items():
            answer = clean_text(row[column]) if column < len(row) else ""
            if not answer:
                continue
            if reason := _unusable(answer):
                aside.append(SetAside(number, topic, reason))
                continue
            key = hashlib.sha256(f"{topic}|{answer}".encode()).hexdigest()[:16]
            openers.setdefault(key, Opener(key, topic, answer, author))
    return list(openers.values()), aside


def _unusable(answer: str) -> str | None:
    if found := next(personal_data(answer), None):
        return f"holds personal data ({found[0]})"
    if has_control_characters(answer):
        return "holds a control character"
    return f"is longer than {MAX_TURN_LENGTH} characters" if len(answer) > MAX_TURN_LENGTH else None


def _distinct(topics: Sequence[str]) -> list[str]:
    """A form can not tell two equal questions apart, so a topic that comes again gets a number."""
    seen: dict[str, int] = {}
    result = []
    for topic in topics:
        seen[topic] = seen.get(topic, 0) + 1
        result.append(topic if seen[topic] == 1 else f"{topic}（その{seen[topic]}）")
    return result
