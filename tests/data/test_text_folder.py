import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError

WHOSE = 'Client "lyon"'
GOOD = ("calm night", "walked far", "slept well", "fever gone", "walked well", "calm and well")
BAD = ("fever again", "pain at night", "coughs blood", "pain and fever", "coughs at night", "again pain")


def letters(folder: Path, *, towns: int = 1) -> Path:
    """Letters in two folders, of which some are in a folder of their year."""
    for place, (name, texts) in enumerate({"well": GOOD, "ill": BAD}.items()):
        for number, text in enumerate(texts * towns):
            path = folder / name / ("2024" if number % 3 == 2 else "") / f"{place}{number:02d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder


def test_a_file_is_a_row_and_its_first_folder_the_label(tmp_path: Path) -> None:
    read = fp.client("lyon", fp.TextFolder(letters(tmp_path)), "folder", test=0)
    # The names of files begin with 0 or 1, and come before the folder "2024".
    order = (0, 1, 3, 4, 2, 5)
    texts = [each[place] for each in (BAD, GOOD) for place in order]
    given = pd.DataFrame({"text": texts, "folder": ["ill"] * 6 + ["well"] * 6})
    expected = fp.client("lyon", given, "folder", test=0)
    pd.testing.assert_frame_equal(read.train.x, expected.train.x)
    assert np.array_equal(read.train.y, expected.train.y)


@pytest.mark.parametrize("rows", [1, 5, 12, 100])
def test_chunks_are_the_table_whatever_their_size(tmp_path: Path, rows: int) -> None:
    source = fp.TextFolder(letters(tmp_path), files=True)
    chunks = list(source.chunks(WHOSE, rows))
    assert max(map(len, chunks)) <= rows
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), source.table(WHOSE))


def test_the_order_is_that_of_paths_and_not_of_the_files_making(tmp_path: Path) -> None:
    names = ["b/2.txt", "a/z.txt", "b/10.txt", "a/x/1.txt", "B/1.txt", "a-b/1.txt"]
    found = []
    for folder, order in ((tmp_path / "one", names), (tmp_path / "other", names[::-1])):
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        found.append(fp.TextFolder(folder, files=True).table(WHOSE))
    assert found[0]["file"].tolist() == [
        "B/1.txt",
        "a/x/1.txt",
        "a/z.txt",
        "a-b/1.txt",
        "b/10.txt",
        "b/2.txt",
    ]
    pd.testing.assert_frame_equal(found[0], found[1])


def test_letters_with_accents_name_one_class_however_they_are_spelt(tmp_path: Path) -> None:
    for number, name in enumerate(("g\u00e9n\u00e9ral", "ge\u0301ne\u0301ral")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{number}.txt").write_text("calm")
    assert fp.TextFolder(tmp_path).table(WHOSE)["folder"].unique().tolist() == ["g\u00e9n\u00e9ral"]


def test_hidden_files_and_other_names_are_left_out_and_links_followed_once(tmp_path: Path) -> None:
    folder = letters(tmp_path / "letters")
    (folder / "well" / "._0.txt").write_bytes(b"\xff\xfe")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "1.txt").write_text("old")
    (folder / "well" / "notes.md").write_text("not a letter")
    (folder / "well" / "around").symlink_to(folder, target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.txt").write_text("moved to another disk")
    (folder / "moved").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    table = fp.TextFolder(folder).table(WHOSE)
    assert table["folder"].value_counts().to_dict() == {"ill": 6, "well": 6, "moved": 1}
    assert fp.TextFolder(folder, pattern="*.md").table(WHOSE)["text"].tolist() == ["not a letter"]


def test_files_without_folders_have_no_label(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("calm")
    (tmp_path / "2.txt").write_text("")
    assert fp.TextFolder(tmp_path, label=None).table(WHOSE).to_dict("list") == {"text": ["calm", ""]}
    with pytest.raises(DataError, match=r'^Client "lyon": .*1\.txt lies in no folder of a class'):
        fp.TextFolder(tmp_path).table(WHOSE)


def test_a_text_is_read_in_its_encoding_and_without_its_mark(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_bytes("\ufefffièvre\r\ntoux\r\n".encode())
    (tmp_path / "2.txt").write_bytes("fièvre".encode("cp1252"))
    assert fp.TextFolder(tmp_path, None, pattern="1*").table(WHOSE)["text"].tolist() == ["fièvre\ntoux\n"]
    assert fp.TextFolder(tmp_path, None, "cp1252", "2*").table(WHOSE)["text"].tolist() == ["fièvre"]
    with pytest.raises(DataError, match=r'^Client "lyon": .*2\.txt is not text in .* "utf-8", at byte 3'):
        fp.TextFolder(tmp_path, None).table(WHOSE)


def test_what_cannot_be_read_is_said_of_the_client(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    with pytest.raises(
        DataError, match=r'^Client "lyon": there is no folder .*lettres.* Did you mean "letters"'
    ):
        fp.client("lyon", fp.TextFolder(tmp_path / "lettres"), "folder")
    with pytest.raises(DataError, match=r'^Client "lyon" has no rows: there are no files "\*\.txt" in '):
        fp.client("lyon", fp.TextFolder(tmp_path / "letters"), "folder")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoding": "utf-9"}, 'no encoding "utf-9"'),
        ({"encoding": "hex"}, 'no encoding "hex"'),
        ({"encoding": 5}, "encoding is 5; it must be text"),
        ({"pattern": 5}, "pattern is 5; it must be text"),
        ({"pattern": "**/*.txt"}, "must be of a file's name alone"),
        ({"label": "file"}, "label is 'file'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fp.TextFolder(os.curdir, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["MultinomialNB", "Logistic"])
@pytest.mark.parametrize("step", ["HashText", "TfIdf"])
def test_two_clients_letters_train_a_classifier_from_a_job(tmp_path: Path, model: str, step: str) -> None:
    sources = {
        town: {"name": "TextFolder", "folder": str(letters(tmp_path / town, towns=2))}
        for town in ("lyon", "nice")
    }
    how = {"signed": False} if step == "HashText" else {"vocabulary": "agreed"}
    job = {
        "model": model,
        "algorithm": "OneShot" if model == "MultinomialNB" else {"name": "Newton"},
        "preprocess": [{"name": step, "columns": ["text"], **how}],
        "rounds": 1 if model == "MultinomialNB" else 4,
        "data": {"clients": sources, "label": "folder", "test": 0.25},
    }
    if model == "Logistic":
        job["model"] = {"name": "Logistic", "l2": 0.01}
    result = fp.run(fp.Job.of(job), progress=False)
    # Each letter is there twice, and its words are those of its class.
    assert result.evaluation.metrics["accuracy"] >= 0.9
