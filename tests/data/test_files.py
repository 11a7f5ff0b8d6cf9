import json

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from xlora_bench.data import files

TEXTS = ["NA", "null", "None", "1.50", 'an "open quote', "a, b"]
ROWS = pd.DataFrame({"sentence": TEXTS, "label": ["0", "1", "0", "1", "0", "1"]})


def write(path):
    if path.suffix == ".parquet":
        ROWS.to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS.to_dict("records")) + "\n")
    elif path.suffix == ".csv":
        ROWS.to_csv(path, index=False)
    else:
        path.write_text("sentence\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in ROWS.itertuples(index=False)))
    return path


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_every_format_gives_the_same_text(tmp_path, suffix):
    assert files.read(write(tmp_path / f"train.{suffix}")).to_dict("list") == ROWS.to_dict("list")


def test_the_one_file_of_a_split_is_found(tmp_path):
    path = write(tmp_path / "train.tsv")
    write(tmp_path / "validation.csv")
    assert files.find(tmp_path, "train") == path


def test_a_missing_file_names_the_paths_tried(tmp_path):
    with pytest.raises(ValueError, match=r"data_dir.*'train'.*n\.parquet.*n\.jsonl.*n\.csv.*n\.tsv"):
        files.find(tmp_path, "train")


def test_two_files_for_one_split_are_not_guessed_between(tmp_path):
    write(tmp_path / "train.tsv"), write(tmp_path / "train.csv")
    with pytest.raises(ValueError, match=r"twice.*train\.csv, train\.tsv.*keep one"):
        files.find(tmp_path, "train")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_a_damaged_file_is_named(tmp_path, suffix):
    path = tmp_path / f"train.{suffix}"
    path.write_bytes(b'\xff\xfe{"sentence": \n')
    with pytest.raises(ValueError, match=rf"train\.{suffix} cannot be read as {suffix}"):
        files.read(path)


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    column = pyarrow.array(["a"])
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([column] * 2, ["text", "text"]), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="has the column 'text' twice"):
        files.read(tmp_path / "train.parquet")
