# SPDX-License-Identifier: Apache-2.0
import json
import logging

import pytest
from itaclip.text import (
    CallableSource,
    ClassList,
    FileSource,
    MappingSource,
    TextFileError,
    TextSource,
    as_source,
    aux_texts,
)
from itaclip.text.sources import write_texts

NAMES = ("cat", "dog", "ship")


@pytest.fixture
def file(tmp_path):
    def write(text, name="aux.txt"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


LINES = "dog >=tame wolf\ncat >=small pet, with whiskers\nship >= a vessel >= 20 m\n"
TREE = {"dog": "tame wolf", "cat": "small pet, with whiskers", "ship": "a vessel >= 20 m"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("aux.txt", LINES),
        ("aux.txt", "\ufeff" + LINES.replace("\n", "\r\n\r\n")),
        ("aux.txt", LINES + LINES),
        ("aux.json", json.dumps(TREE)),
        ("aux.yaml", "".join(f"{key}: '{text}'\n" for key, text in TREE.items())),
    ],
    ids=["lines", "windows", "appended", "json", "yaml"],
)
def test_rows_are_matched_by_name(file, name, text):
    got = FileSource(file(text, name)).aux(("cat", "DOG", "ship"))
    assert got == [("small pet, with whiskers",), ("tame wolf",), ("a vessel >= 20 m",)]


def test_rows_go_by_order_where_names_differ(file, caplog):
    source = FileSource(file("cat >=a\ndog >=b\nboat >=c"))
    assert source.aux(NAMES) == [("a",), ("b",), ("c",)]
    assert "'boat' stands for 'ship'" in caplog.text


def test_order_is_not_guessed_against_the_names(file):
    with pytest.raises(
        TextFileError, match="neither by name nor by order: 'dog' stands in the place of 'cat'"
    ):
        FileSource(file("dog >=b\ncat >=a\nboat >=c")).aux(NAMES)


def test_names_that_match_are_not_reported(file, caplog):
    with caplog.at_level(logging.DEBUG):
        FileSource(file(LINES)).aux(NAMES)
    assert caplog.text == ""


def test_a_plain_list_goes_by_order(file):
    assert FileSource(file('["a", ["b", "c"]]', "aux.json")).aux(("cat", "dog")) == [("a",), ("b", "c")]


def test_several_texts_per_name(file):
    assert FileSource(file("cat: [a, b]\ndog: c", "aux.yaml")).aux(("dog", "cat")) == [("c",), ("a", "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat >=a\ndog >=b", "2 rows for 3 classes: there is none for 'ship'"),
        (LINES + "cow >=x", "4 rows for 3 classes: no class is called 'cow'"),
        (LINES + "cat >=another", "4 rows for 3 classes: 'cat' is given twice with different texts"),
        ("a >=1", "1 rows for 3 classes: there is none for 'cat', 'dog', 'ship'"),
    ],
)
def test_the_number_of_rows_is_checked(file, text, message):
    path = file(text)
    with pytest.raises(TextFileError, match=message) as error:
        FileSource(path).aux(NAMES)
    assert str(path) in str(error.value)


def test_a_plain_list_of_another_length(file):
    with pytest.raises(TextFileError, match="2 rows for 3 classes"):
        FileSource(file("[a, b]", "aux.yaml")).aux(NAMES)


def test_long_lists_of_names_are_cut(file):
    with pytest.raises(TextFileError, match="'1', '2', '3' and 7 more"):
        FileSource(file("0 >=x")).aux([str(i) for i in range(11)])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("aux.txt", "cat >=a\ndog b", "line 2: a row must read 'name >=text', got 'dog b'"),
        ("aux.txt", "cat >=a\n\n >=b", "line 3"),
        ("aux.txt", "cat >=", "line 1"),
        ("aux.txt", "\n", "is empty"),
        ("aux.json", "3", "a mapping from names to texts is wanted"),
        ("aux.json", "{}", "a mapping from names to texts is wanted"),
        ("aux.json", '{"cat": 3}', "the text of 'cat' must be a string, got 3"),
        ("aux.json", '{"cat": [["a"]]}', "must be a string"),
        ("aux.json", '{"cat": ""}', "the text of 'cat' is empty"),
        ("aux.json", '{"cat": "a", "cat": "b"}', "'cat' is given twice"),
        ("aux.yaml", "cat: a: b", "cannot be parsed"),
    ],
)
def test_broken_files_are_named(file, name, text, message):
    with pytest.raises(TextFileError, match=message) as error:
        FileSource(file(text, name))
    assert name in str(error.value)


def test_lenient_files(file):
    source = FileSource(file("cat >=a\ncow >=b"), strict=False)
    assert source.aux(NAMES) == [("a",), (), ()]
    with pytest.raises(TextFileError, match="no auxiliary text for 'dog': add it, or leave the texts out"):
        source.aux(["dog"])


def test_full_stops(file):
    path = file("cat >=A pet.\ndog >=a, b, etc...")
    assert FileSource(path).aux(("cat", "dog")) == [("A pet.",), ("a, b, etc...",)]
    assert FileSource(path, strip_stop=True).aux(("cat", "dog")) == [("A pet",), ("a, b, etc...",)]


def test_mapping():
    source = MappingSource({"Traffic  Light": "lamps", "cat": ["a", "b"]})
    assert source.aux(["cat", "traffic light"]) == [["a", "b"], "lamps"]
    with pytest.raises(ValueError, match="no auxiliary text for 'dog': add it, or leave the texts out"):
        source.aux(["cat", "dog"])
    with pytest.raises(ValueError, match="texts for 'traffic light', which no class"):
        source.aux(["cat"])
    with pytest.raises(ValueError, match="'CAT' are given twice"):
        MappingSource({"cat": "a", "CAT": "b"})
    assert MappingSource({"cat": "a"}, allow_missing=True).aux(["cat", "dog"]) == ["a", ()]
    assert MappingSource({"cat": "a", "cow": "b"}, allow_extra=True).aux(["cat"]) == ["a"]


def test_functions():
    assert CallableSource(str.upper).aux(NAMES) == ["CAT", "DOG", "SHIP"]


def test_every_form_of_texts(file):
    path = file(LINES)
    own = CallableSource(str.upper)
    assert isinstance(own, TextSource)
    assert as_source(own) is own
    # texts for other names than those of the classes do no harm
    assert as_source({"cat": "a", "cow": "b"}).aux(["cat"]) == ["a"]
    assert as_source(path).aux(NAMES) == as_source(str(path)).aux(NAMES)
    assert as_source(str.upper).aux(["cat"]) == ["CAT"]
    with pytest.raises(TypeError, match="got int"):
        as_source(3)
    with pytest.raises(
        ValueError, match="'voc22' are neither a file nor one of definitions, synonyms, voc21"
    ):
        as_source("voc22")
    with pytest.raises(TextFileError, match=r"absent\.txt cannot be read"):
        as_source("absent.txt")


def test_the_background_has_no_row():
    classes = ClassList.build(["cat", "dog"], background=["sky"])
    assert aux_texts({"cat": "a", "dog": ["b", "c"]}, classes) == [("a",), ("b", "c")]
    assert aux_texts(None, classes) is None


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["a"], ValueError, "2 classes .the background has none., got 1"),
        (["a", ""], ValueError, "text of 'dog' is empty"),
        (["a", 3], TypeError, "text of 'dog' must be a string, got 3"),
        ("ab", ValueError, "got the string 'ab'"),
    ],
)
def test_what_a_source_says_is_checked(texts, error, message):
    class Own:
        def aux(self, names):
            return texts

    with pytest.raises(error, match=message):
        aux_texts(Own(), ClassList.build(["cat", "dog"], background=["sky"]))


@pytest.mark.parametrize("name", ["aux.yaml", "aux.json", "aux.txt"])
def test_what_is_written_is_read_again(tmp_path, name):
    texts = {"no": "not yes: a \u00ab word \u00bb", "cat": "small pet, with 'whiskers' >= 3", "1": "- one"}
    write_texts(tmp_path / "deep" / name, texts)
    assert FileSource(tmp_path / "deep" / name).aux(tuple(texts)) == [(text,) for text in texts.values()]
    assert [file.name for file in (tmp_path / "deep").iterdir()] == [name]


def test_several_texts_are_written_as_trees_only(tmp_path):
    write_texts(tmp_path / "aux.yaml", {"cat": ("a", "b")})
    assert FileSource(tmp_path / "aux.yaml").aux(["cat"]) == [("a", "b")]
    for texts in ({"cat": ("a", "b")}, {"cat": "a\nb"}, {"c >=": "a"}, {"cat": " "}):
        with pytest.raises(ValueError, match=r"do not fit on a line .*: write \.yaml or \.json"):
            write_texts(tmp_path / "aux.txt", texts)
