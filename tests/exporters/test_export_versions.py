"""A version is its content: same records, same bytes; readable by `datasets` as it is; never half there."""

from __future__ import annotations

import collections
import dataclasses
import fcntl
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.export_dialogues import dialogues
from dialogue import Dialogue, FileError, RecordError, Turn, load_taxonomy, read_dialogues, write_dialogues
from exporters import (
    DatasetVersion,
    ExportSettings,
    export_file,
    get_version,
    latest_version,
    verify_version,
)
from exporters.splits import SPLITS

ROOT = Path(__file__).parent.parent.parent
TAXONOMY = load_taxonomy()


def export(path: Path, datasets: Path, **settings: object) -> DatasetVersion:
    return export_file(path, datasets, ExportSettings(**settings), taxonomy=TAXONOMY)  # type: ignore[arg-type]


def written(tmp_path: Path, records: list[Dialogue], name: str = "in.jsonl") -> Path:
    write_dialogues(tmp_path / name, records)
    return tmp_path / name


def records_of(version: DatasetVersion) -> dict[str, dict[str, Dialogue]]:
    return {split: {d.id: d for d in read_dialogues(version.file(split))} for split in SPLITS}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_nothing_is_lost_and_nothing_is_changed(tmp_path: Path) -> None:
    given = list(dialogues(150, seed=3, awkward=True))
    version = export(written(tmp_path, given), tmp_path / "datasets")
    found = records_of(version)
    assert {id_: d for split in found.values() for id_, d in split.items()} == {d.id: d for d in given}
    assert dict(version.counts) == {split: len(found[split]) for split in SPLITS} | {"rejected": 0}
    verify_version(version)


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    given = list(dialogues(80, share_of_copies=0.1))
    one = export(written(tmp_path, given, "a.jsonl"), tmp_path / "a")
    two = export(written(tmp_path, given[::-1], "b.jsonl"), tmp_path / "b")
    again = export(written(tmp_path, given, "a.jsonl"), tmp_path / "a")
    assert one.id == two.id == again.id
    assert tree(one.path) == tree(two.path)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_one_character_makes_another_version(tmp_path: Path) -> None:
    given = list(dialogues(30))
    one = export(written(tmp_path, given), tmp_path / "a")
    given[7] = dataclasses.replace(given[7], context=given[7].context + "。")
    assert export(written(tmp_path, given), tmp_path / "b").id != one.id


def test_growing_keeps_test_in_test(tmp_path: Path) -> None:
    given = list(dialogues(400, share_of_copies=0.2, seed=5))
    test: set[str] = set()
    for count in (12, 60, 61, 400):
        found = records_of(export(written(tmp_path, given[:count]), tmp_path / "datasets"))
        assert test <= set(found["test"])
        test = set(found["test"])
    assert len(test) > 20


def test_near_duplicates_are_listed_and_stay_in_one_split(tmp_path: Path) -> None:
    given = list(dialogues(300, share_of_copies=0.3, seed=1))
    version = export(written(tmp_path, given), tmp_path / "datasets")
    checks = json.loads((version.path / "checks.json").read_text(encoding="utf-8"))
    assert len(checks["duplicates"]) > 20
    assert all(len(pair["splits"]) == 1 and pair["jaccard"] >= 0.8 for pair in checks["duplicates"])
    assert checks["leaks"] == []
    assert version.manifest["findings"]["duplicates"] == len(checks["duplicates"])


def test_personal_data_is_listed_where_it_stands(tmp_path: Path) -> None:
    given = list(dialogues(6))
    turns = list(given[2].conversation)
    turns[3] = Turn(turns[3].speaker, "番号は090-1234-5678、メールはa.b@example.com")
    given[2] = dataclasses.replace(given[2], conversation=tuple(turns), context="〒100-0001の前で")
    version = export(written(tmp_path, given), tmp_path / "datasets")
    found = json.loads((version.path / "checks.json").read_text(encoding="utf-8"))["personal_data"]
    assert {(row["id"], row["turn"], row["kind"]) for row in found} == {
        (given[2].id, 0, "postal code"),
        (given[2].id, 4, "telephone"),
        (given[2].id, 4, "e-mail"),
    }


def test_datasets_reads_the_folder_as_it_is(tmp_path: Path) -> None:
    from datasets import load_dataset

    given = list(dialogues(60, awkward=True))
    # A column that is null in one split and text in another trips a reader that guesses types by split.
    given[0] = dataclasses.replace(
        given[0], source=dataclasses.replace(given[0].source, opener="a:b", edits=(0.5, None))
    )
    version = export(written(tmp_path, given), tmp_path / "datasets")
    loaded = load_dataset(str(version.path), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == set(SPLITS)
    rows = {row["id"]: Dialogue.from_dict(row) for split in SPLITS for row in loaded[split]}
    assert rows == {d.id: d for d in given}


def test_the_card_tells_the_numbers(tmp_path: Path) -> None:
    given = list(dialogues(40))
    given[0] = dataclasses.replace(
        given[0],
        source=dataclasses.replace(
            given[0].source, kind="drafted", checkpoint="0123456789ab", annotator="annotator-77"
        ),
    )
    version = export(written(tmp_path, given), tmp_path / "datasets", title="雑談", license="cc-by-4.0")
    card = (version.path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlanguage:\n- ja\nlicense: cc-by-4.0\n")
    assert "\n# 雑談\n" in card
    assert version.id in card
    pairs = collections.Counter((d.attribute.closeness, d.attribute.mood) for d in given)
    for closeness, row in enumerate(re.findall(r"^\| \d \S+ \|(.+)\|$", card, re.MULTILINE)):
        assert [int(n) for n in row.split("|")] == [pairs[closeness, mood] for mood in range(5)]
    for line in ("| manual | 39 |", "| drafted | 1 |", "| annotator-77 | 1 |", "| 0123456789ab | 1 |"):
        assert line in card
    for genre, number in collections.Counter(g for d in given for g in d.genre).items():
        assert f"| {genre} | {number} |" in card


def test_the_card_tells_how_varied_the_texts_are(tmp_path: Path) -> None:
    from dialogue.text import character_ngrams

    given = list(dialogues(60, share_of_copies=0.2))
    version = export(written(tmp_path, given), tmp_path / "datasets")
    sets = [character_ngrams("\n".join(turn.text for turn in d.conversation)) for d in given]
    expected = len(set().union(*sets)) / sum(map(len, sets))
    card = (version.path / "README.md").read_text(encoding="utf-8")
    assert float(re.search(r"not repeated: ([\d.]+)", card)[1]) == pytest.approx(expected, abs=0.002)  # type: ignore[index]


def test_a_card_follows_the_settings_but_records_stay(tmp_path: Path) -> None:
    path = written(tmp_path, list(dialogues(20)))
    one = export(path, tmp_path / "datasets", title="one")
    before = one.file("train").stat().st_mtime_ns
    two = export(path, tmp_path / "datasets", title="two")
    assert (one.id, before) == (two.id, two.file("train").stat().st_mtime_ns)
    assert "# two" in (two.path / "README.md").read_text(encoding="utf-8")


def test_latest_and_get(tmp_path: Path) -> None:
    datasets = tmp_path / "datasets"
    with pytest.raises(FileError, match="aku export"):
        latest_version(datasets)
    version = export(written(tmp_path, list(dialogues(9))), datasets)
    assert latest_version(datasets) == version == get_version(datasets, version.id)
    for wrong in ("0" * 12, "../datasets", ""):
        with pytest.raises(FileError, match="aku export"):
            get_version(datasets, wrong)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    version = export(written(tmp_path, list(dialogues(9))), tmp_path / "datasets")
    with version.file("train").open("a", encoding="utf-8") as handle:
        handle.write("{}\n")
    with pytest.raises(FileError, match=version.id):
        verify_version(version)
    version.file("test").unlink()
    with pytest.raises(FileError, match=f"{version.id}.*remove the folder"):
        export(tmp_path / "in.jsonl", tmp_path / "datasets")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"id": "a"', FileError, "line 1"),
        (
            '{"id": "a", "context": "", "conversation": [], "attribute": {"closeness": 1, "mood": 1}}',
            RecordError,
            "context",
        ),
        ("[1]", FileError, "line 1"),
    ],
)
def test_a_broken_file_leaves_nothing(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    (tmp_path / "in.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        export(tmp_path / "in.jsonl", tmp_path / "datasets")
    assert [p.name for p in (tmp_path / "datasets").iterdir()] == [".lock"]


def test_a_second_export_at_the_same_time_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, list(dialogues(9)))
    export(path, tmp_path / "datasets")
    with (tmp_path / "datasets" / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(FileError, match="another export"):
            export(path, tmp_path / "datasets")
    export(path, tmp_path / "datasets")


def test_unknown_genres_are_named(tmp_path: Path) -> None:
    given = [dataclasses.replace(d, genre=("宇宙",)) for d in dialogues(5)]
    version = export(written(tmp_path, given), tmp_path / "datasets")
    assert version.manifest["unknown_genres"] == ["宇宙"]


def test_no_record_at_all_is_a_version_too(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("")
    version = export(tmp_path / "in.jsonl", tmp_path / "datasets")
    assert dict(version.counts) == {"train": 0, "validation": 0, "test": 0, "rejected": 0}


FULL = """
import resource, sys
from pathlib import Path
from dialogue import FileError, load_taxonomy
from exporters import ExportSettings, export_file
source, datasets, size = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
try:
    export_file(Path(source), Path(datasets), ExportSettings(), taxonomy=load_taxonomy())
except FileError as error:
    print(error)
"""


@pytest.mark.parametrize("size", [100, 20_000, 60_000, 150_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    """A limit on file sizes fails where a full disk does: in the spool, in a split's file, in the ledger."""
    path = written(tmp_path, list(dialogues(150)))
    command = [sys.executable, "-c", FULL, str(path), str(tmp_path / "datasets"), str(size)]
    found = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert re.search(r"writing failed .*free some space", found.stdout)
    assert not found.stderr
    assert [p.name for p in (tmp_path / "datasets").iterdir() if not p.name.startswith(".")] in ([], ["splits.json"])
    assert not (tmp_path / "datasets" / "latest.json").exists()
    export(path, tmp_path / "datasets")
