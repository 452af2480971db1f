"""The starter corpus and the scenes: coverage, uniqueness, and the project's own bias report."""

from __future__ import annotations

import collections
import itertools
import json
from pathlib import Path

import pytest

from dialogue import Attribute, load_taxonomy
from dialogue.text import character_ngrams, jaccard, personal_data

EXAMPLES = Path(__file__).parent.parent / "examples"
GREETING = 8
"""Characters up to which two dialogues may share a line: a bare greeting."""


def test_the_first_ten_are_the_memos(starter) -> None:
    first = starter[:10]
    pairs = collections.Counter(d.attribute for d in first)
    assert pairs == {Attribute(*p): 2 for p in [(2, 2), (4, 4), (0, 0), (4, 0), (0, 4)]}
    assert {len(d.conversation) for d in first} == {10}
    assert len({d.context for d in first}) == len({d.genre[0] for d in first}) == 10


def test_every_pair_and_topic_is_covered(starter) -> None:
    assert len(starter) == 100
    pairs = collections.Counter(d.attribute for d in starter)
    assert pairs == {Attribute(c, m): 4 for c, m in itertools.product(range(5), range(5))}
    topics = collections.Counter(topic for d in starter for topic in d.genre)
    assert set(topics) == set(load_taxonomy().names)
    assert min(topics.values()) >= 4


def test_numbers_of_turns_and_lengths_are_spread(starter) -> None:
    turns = collections.Counter(len(d.conversation) for d in starter)
    assert set(turns) == set(range(4, 17))
    lengths = sorted(len(turn.text) for d in starter for turn in d.conversation)
    assert lengths[0] < 5
    assert lengths[-1] > 60
    assert 13 < sum(lengths) / len(lengths) < 25


def test_no_two_dialogues_share_a_line_beyond_greetings(starter) -> None:
    where = collections.defaultdict(set)
    for dialogue in starter:
        for turn in dialogue.conversation:
            if len(turn.text) > GREETING:
                where[turn.text].add(dialogue.id)
    assert not {text: ids for text, ids in where.items() if len(ids) > 1}
    assert len({d.context for d in starter}) == 100


def test_no_two_dialogues_are_near_copies(starter) -> None:
    grams = [character_ngrams("".join(turn.text for turn in d.conversation)) for d in starter]
    assert max(jaccard(a, b) for a, b in itertools.combinations(grams, 2)) < 0.1


def test_no_personal_data(starter) -> None:
    assert not [found for d in starter for turn in d.conversation for found in personal_data(turn.text)]


def test_the_bias_report_finds_nothing_to_mend_in_attributes_and_genres(starter) -> None:
    import analysis

    found = analysis.report(starter, taxonomy=load_taxonomy())
    verdicts = {view.key: view.verdict for view in found.views}
    assert verdicts["genre"] is not analysis.Verdict.FIX
    assert verdicts["pairs"] is not analysis.Verdict.FIX


def test_scenes_cover_all_topics_and_differ() -> None:
    rows = [json.loads(line) for line in (EXAMPLES / "contexts.jsonl").read_text(encoding="utf-8").splitlines()]
    topics = collections.Counter(row["topic"] for row in rows)
    assert set(topics) == set(load_taxonomy().names)
    assert len(rows) >= 300
    assert min(topics.values()) >= 10
    grams = [character_ngrams(row["context"]) for row in rows]
    assert max(jaccard(a, b) for a, b in itertools.combinations(grams, 2)) < 0.5


@pytest.mark.parametrize("name", ["starter.jsonl", "contexts.jsonl"])
def test_files_end_with_a_line_break_and_hold_no_escapes(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert "\\u" not in text
