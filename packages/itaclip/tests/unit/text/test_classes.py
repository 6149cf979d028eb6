# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from itaclip.text import ClassList, TextFileError


def test_names_owners_and_labels():
    things = ClassList((("sky", "wall"), ("cat", "feline"), ("dog",)), background=True)
    assert len(things) == 3
    assert things.names == ("sky", "wall", "cat", "feline", "dog")
    assert things.owner == (0, 0, 1, 1, 2)
    assert things.labels == ("background", "cat", "dog")
    assert things.foreground == ("cat", "dog")
    assert ClassList((("sky", "wall"), ("cat",))).labels == ("sky", "cat")


@pytest.mark.parametrize(
    ("given", "background", "classes", "has_background"),
    [
        (["cat", "dog"], None, (("cat",), ("dog",)), False),
        ([["cat", "feline"], "dog"], None, (("cat", "feline"), ("dog",)), False),
        (
            {"cat": ["feline"], "dog": None, "cow": "ox"},
            None,
            (("cat", "feline"), ("dog",), ("cow", "ox")),
            False,
        ),
        ({"cat": ["cat", "feline"]}, None, (("cat", "feline"),), False),
        (["cat"], ["sky", "wall"], (("sky", "wall"), ("cat",)), True),
        (["cat"], "sky", (("sky",), ("cat",)), True),
        (["cat"], [], (("cat",),), False),
        (["background", "cat"], None, (("background",), ("cat",)), True),
        ({"cat": [], "background": ["sky", "wall"]}, None, (("sky", "wall"), ("cat",)), True),
        ({"background": [], "cat": []}, None, (("background",), ("cat",)), True),
        (["  the   cat "], None, (("the cat",),), False),
        (ClassList((("cat",),)), ["sky"], (("sky",), ("cat",)), True),
    ],
)
def test_what_people_write(given, background, classes, has_background):
    built = ClassList.build(given, background=background)
    assert built.classes == classes
    assert built.background is has_background


def test_a_ready_list_stays_itself():
    things = ClassList((("cat",),))
    assert ClassList.build(things) is things


@pytest.mark.parametrize(
    ("given", "background", "message"),
    [
        ([], None, "classes is empty"),
        ({}, None, "classes is empty"),
        ([], ["sky"], "classes is empty"),
        (["cat", ""], None, "a class name is empty"),
        (["cat", "  "], None, "a class name is empty"),
        (["cat", []], None, "a class has no name"),
        (["cat", "Cat"], None, "'Cat' is given twice"),
        ([["cat", "pet"], ["dog", "pet"]], None, "'pet' is given twice"),
        ([["cat", "cat"]], None, "'cat' is given twice"),
        (["cat"], ["sky", "sky"], "'sky' is given twice"),
        (["cat, feline"], None, "holds a comma"),
        (["cat\nfeline"], None, "holds a comma or a line break"),
        (["bed", "cat"], ["sky", "bed"], "background word 'bed' is also the name of a class"),
        (["background", "cat"], ["sky"], "given twice"),
        (["cat", "background"], None, "'background' must come first"),
        (ClassList((("sky",), ("cat",)), background=True), ["wall"], "given twice"),
    ],
)
def test_wrong_names_are_refused(given, background, message):
    with pytest.raises(ValueError, match=message):
        ClassList.build(given, background=background)


@pytest.mark.parametrize("given", ["cat", [3], [["cat", None]], {"cat": 3}, {"cat": [3]}])
def test_names_must_be_strings(given):
    with pytest.raises(TypeError, match="must be a"):
        ClassList.build(given)


def test_a_background_word_may_repeat_a_class_where_a_benchmark_does():
    things = ClassList((("sky", "bed"), ("bed",)), background=True)
    assert things.names == ("sky", "bed", "bed")


def test_comments_in_lines_are_no_names(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("# classes of the farm\n\ncat, feline\n#\n  # not yet: cow\n#1, dog\n")
    assert ClassList.from_file(file).classes == (("cat", "feline"), ("#1", "dog"))
    file.write_text("# nothing else\n")
    with pytest.raises(TextFileError, match=r"classes\.txt is empty"):
        ClassList.from_file(file)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_format(tmp_path, newline):
    file = tmp_path / "classes.txt"
    file.write_bytes(newline.join(["sky, wall", "cat, feline", "dog", ""]).encode())
    things = ClassList.from_file(file, background=True)
    assert things == ClassList((("sky", "wall"), ("cat", "feline"), ("dog",)), background=True)
    assert not ClassList.from_file(file).background


@pytest.mark.parametrize(
    "text",
    [
        "background: [sky, bed]\nclasses:\n- [cat, feline]\n- bed\n",
        "background: [sky, bed]\nclasses:\n  cat: feline\n  bed:\n",
        json.dumps({"background": ["sky", "bed"], "classes": [["cat", "feline"], "bed"]}),
    ],
)
def test_yaml_and_json(tmp_path, text):
    file = tmp_path / ("classes.json" if text.startswith("{") else "classes.yaml")
    file.write_text(text)
    assert ClassList.from_file(file) == ClassList(
        (("sky", "bed"), ("cat", "feline"), ("bed",)), background=True
    )


def test_a_plain_mapping_in_yaml(tmp_path):
    file = tmp_path / "classes.yml"
    file.write_text("no: [nay]\n1:\ncat: feline\n")
    assert ClassList.from_file(file).classes == (("no", "nay"), ("1",), ("cat", "feline"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "", "is empty"),
        ("c.txt", "cat\ncat", "'cat' is given twice"),
        ("c.txt", "cat,, feline", "name is empty"),
        ("c.yaml", "", "is empty"),
        ("c.yaml", "cat: [", "cannot be parsed"),
        ("c.yaml", "cat: a\ncat: b", "'cat' is given twice"),
        ("c.yaml", "[a, b]: c", "cannot be parsed"),
        ("c.yaml", "just words", "a list or a mapping of names is wanted"),
        ("c.yaml", "- 3", "must be a string"),
        ("c.yaml", "!!python/object/apply:os.getcwd []", "cannot be parsed"),
        ("c.yaml", "classes: [cat]\nbackgrund: [sky]", "unknown key 'backgrund'"),
        ("c.json", "{", "cannot be parsed"),
        ("c.json", '{"cat": [], "cat": []}', "'cat' is given twice"),
        ("c.json", "[" * 100_000, "cannot be parsed"),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(TextFileError, match=message) as error:
        ClassList.from_file(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(TextFileError, match=r"absent\.txt cannot be read: No such file"):
        ClassList.from_file(tmp_path / "absent.txt")
    with pytest.raises(TextFileError, match="cannot be read"):
        ClassList.from_file(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(TextFileError, match="not UTF-8"):
        ClassList.from_file(tmp_path / "latin.txt")
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(TextFileError, match="larger than 16 MiB"):
        ClassList.from_file(tmp_path / "huge.txt")
