import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_hexdigest

from xlora_bench.system.file_index import LEAST, FileIndex

CODE = ("runs/record.py",)


@pytest.fixture
def files(tmp_path):
    paths = {str(number): tmp_path / f"{number}.txt" for number in range(LEAST)}
    for name, path in paths.items():
        path.write_text(f"{name:>5}")
    return paths


@pytest.fixture
def index(tmp_path):
    return tmp_path / ".index" / "texts.json"


def read(index, files, code=CODE):
    """Return the contents, and the names of the files that were read."""
    opened, of_texts = [], FileIndex(index, code=code)

    def text_of(path):
        opened.append(path.stem)
        return {"text": path.read_text(), "same": {"value": math.inf, "=": 1}}

    contents = {name: of_texts.content(name, path, text_of) for name, path in files.items()}
    of_texts.write(lambda name: files[name].exists())
    return contents, opened


def test_a_file_is_read_once_until_it_changes(index, files):
    first, opened = read(index, files)
    assert opened == list(files)
    assert read(index, files) == (first, [])
    files["3"].write_text("other")  # as long as before
    os.utime(files["4"], (1, 1))
    replacement = files["5"].with_suffix(".new")
    replacement.write_text("   55")
    os.utime(replacement, ns=(1, files["5"].stat().st_mtime_ns))
    replacement.replace(files["5"])  # size and time as before
    contents, opened = read(index, files)
    assert opened == ["3", "4", "5"]
    assert [contents[name]["text"] for name in opened] == ["other", "    4", "   55"]


def test_equal_mappings_are_one_object(index, files):
    read(index, files)
    contents, _ = read(index, files)
    assert contents["0"]["same"] is contents["1"]["same"]
    assert contents["0"]["same"] == {"value": math.inf, "=": 1}


def test_a_damaged_index_is_computed_again(index, files):
    first, _ = read(index, files)
    whole = index.read_bytes()
    for position in (0, 31, 32, 40, len(whole) // 2, len(whole) - 2):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        for content in (bytes(damaged), whole[:position]):
            index.write_bytes(content)
            assert read(index, files) == (first, list(files))
    assert index.read_bytes() == whole


@pytest.mark.parametrize(
    "text", ["[]", "{}", "null", '{"version": 1}', "[" * 100_000, '{"version": "%s", "parts": [1]}']
)
def test_an_index_of_another_shape_is_computed_again(text, index, files):
    content = (text % FileIndex(index, code=CODE).version if "%" in text else text).encode()
    index.parent.mkdir()
    index.write_bytes(xxh3_128_hexdigest(content).encode() + b"\n" + content)
    assert read(index, files)[1] == list(files)


def test_what_was_deleted_leaves_the_index_when_it_is_written_next(index, files, tmp_path):
    read(index, files)
    files.pop("3").unlink()
    more = {f"more {number}": tmp_path / f"more {number}.txt" for number in range(LEAST)}
    for path in more.values():
        path.write_text("more")
    known = FileIndex(index, code=CODE)
    for name, path in more.items():
        known.content(name, path, Path.read_text)
    known.write(lambda name: name in files or name in more)
    assert set(json.loads(index.read_bytes().partition(b"\n")[2])["files"]) == {*files, *more}


def test_other_code_computes_again(index, files):
    read(index, files)
    assert read(index, files, code=(*CODE, "system/io.py"))[1] == list(files)


def test_a_small_folder_and_one_that_cannot_be_written_have_no_index(index, files):
    few = dict(list(files.items())[:-1])
    assert read(index, few) == read(index, few)
    assert not index.parent.exists()
    index.parent.write_text("a file")
    assert read(index, files) == read(index, files)


def test_a_file_that_is_not_there(index, files, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(index, {**files, "none": tmp_path / "none"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("="), inner, max_size=3),
    max_leaves=12,
)


@given(contents=st.lists(json_values, min_size=LEAST, max_size=LEAST))
@settings(max_examples=30, deadline=None)
def test_any_content_comes_back(contents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    file = folder / "file"
    file.write_text("x")
    names = list(map(str, range(LEAST)))
    index = FileIndex(folder / ".index" / "any.json", code=CODE)
    for name, content in zip(names, contents, strict=True):
        index.content(name, file, lambda _, content=content: content)
    index.write(lambda _: True)
    again = FileIndex(folder / ".index" / "any.json", code=CODE)
    assert [again.content(name, file, lambda _: pytest.fail("computed")) for name in names] == contents
