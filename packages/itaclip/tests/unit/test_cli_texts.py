# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from itaclip.text import ClassList, FileSource, LLMSource, shipped_texts


@pytest.fixture
def run(invoke):
    return lambda *args, code=0: invoke("texts", *args, code=code)


@pytest.fixture
def says(monkeypatch):
    """Replaces the language model by what it should say; returns the conversations."""

    def script(*rounds):
        asked, left = [], list(rounds)

        def generate(self, conversations):
            asked.append(conversations)
            return left.pop(0)

        monkeypatch.setattr(LLMSource, "_generate", generate)
        return asked

    return script


def sentence(result):
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("itaclip: ")
    return line


@pytest.mark.parametrize("name", ["out.yaml", "out.json", "out.txt"])
def test_make_writes_what_check_reads(run, says, tmp_path, name):
    says(["Cat: small furry pet.", "tame wolf on a lead"])
    result = run("make", "-c", "cat|feline, dog", "-o", name, "--model", "llm")
    assert "2 of 2 texts" in result.stderr
    rows = FileSource(tmp_path / name).aux(["dog", "cat"])
    assert rows == [("tame wolf on a lead",), ("small furry pet",)]
    checked = run("check", name, "-c", "cat, dog")
    assert "2 texts for 2 classes" in checked.stdout
    assert checked.stderr == ""


def test_make_goes_on_past_a_failure(run, says, tmp_path):
    says(["feline", "house dog"])
    result = run(
        "make", "-c", "cat,dog", "-o", "out.yaml", "--model", "llm", "--kind", "synonyms", "--retries", 0,
        "--json", code=1,
    )  # fmt: skip
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["feline", None]
    assert rows[1]["fault"] == "'house dog' is not one word"
    assert "no usable text for 'dog' in 1 answers" in result.stderr
    assert FileSource(tmp_path / "out.yaml").rows == [("cat", ("feline",))]


def test_make_says_when_nothing_is_usable(run, says, tmp_path):
    says(["a b"])
    line = sentence(
        run("make", "-c", "cat", "-o", "x.txt", "--model", "m", "--kind", "synonyms", "--retries", 0, code=2)
    )
    assert "no usable text (its answer for 'cat': 'a b' is not one word): try more --retries" in line
    assert not (tmp_path / "x.txt").exists()


def test_make_refuses_a_file_before_the_model_is_asked(run, says):
    asked = says()
    line = sentence(run("make", "-c", "cat", "-o", "x.csv", "--model", "m", code=2))
    assert "--output must be a .yaml, .json or .txt file, got x.csv" in line
    assert asked == []


def test_make_keeps_answers_and_files(run, says, tmp_path):
    asked = says(["small furry pet"])
    command = ["make", "-c", "cat", "-o", "out.yaml", "--model", "llm"]
    run(*command)
    assert "out.yaml exists: --overwrite replaces it" in sentence(run(*command, code=2))
    run(*command, "--overwrite")
    assert len(asked) == 1
    says(["an animal of the house"])
    run(*command, "--overwrite", "--no-cache")
    assert FileSource(tmp_path / "out.yaml").rows == [("cat", ("an animal of the house",))]


def test_the_kind_follows_the_list(run, says):
    asked = says([f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(80)])
    command = ["make", "-c", "coco-object", "-o", "o.yaml", "--model", "m"]
    # single words pass as synonyms; as definitions they would be too short
    run(*command, "--retries", 0, "--batch-size", 80)
    assert len(asked[0]) == 80
    assert "one single word" in asked[0][0][0]["content"]
    assert "background:" not in [conversation[1]["content"] for conversation in asked[0]]


def test_make_names_a_model_that_is_not_there(run, tmp_path):
    (tmp_path / "llm").mkdir()
    line = sentence(run("make", "-c", "cat", "-o", "o.txt", "--model", tmp_path / "llm", code=2))
    assert "llm has no config.json" in line
    line = sentence(run("make", "-c", "cat", "-o", "o.txt", "--model", "./gone", code=2))
    assert "no model './gone'" in line


@pytest.mark.parametrize("name", ["voc21", "context60", "coco-stuff", "coco-object", "cityscapes"])
def test_check_finds_nothing_in_our_own(run, name):
    result = run("check", name, "-c", name, "--json")
    found = json.loads(result.stdout)
    assert found["faults"] == found["remarks"] == []
    assert found["classes"] == len(ClassList.shipped(name))
    assert (found["context"], found["longest"] <= 49) == (77, True)


def test_check_remarks(run, tmp_path):
    (tmp_path / "aux.txt").write_text("cat >=A pet.\ndog >=cat\ncow >=CAT")
    result = run("check", "aux.txt", "-c", "cat, dog, cow")
    assert "the text of 'cat' ends in a full stop" in result.stderr
    assert "the text of 'dog' is the name of the class 'cat'" in result.stderr
    assert "'cow' and 'dog' have the same text" in result.stderr


def test_check_faults(run, tmp_path):
    (tmp_path / "aux.txt").write_text("cat >=" + "very " * 80 + "small\ndog >=wolf")
    result = run("check", "aux.txt", "-c", "cat, dog", code=1)
    assert "needs" in result.stderr
    assert "reads 77" in result.stderr
    found = json.loads(run("check", "aux.txt", "-c", "cat, dog", "--json", code=1).stdout)
    assert len(found["faults"]) == 1


def test_check_of_rows_that_do_not_match(run, tmp_path):
    (tmp_path / "aux.txt").write_text("cat >=a pet")
    assert "1 rows for 2 classes: there is none for 'dog'" in sentence(
        run("check", "aux.txt", "-c", "cat, dog", code=2)
    )
    assert "neither a file nor one of" in sentence(run("check", "nothing", "-c", "cat", code=2))
    assert "no model 'ViT-Z'" in sentence(run("check", "voc21", "-c", "voc21", "--model", "ViT-Z", code=2))


def test_show_lists(run):
    rows = [json.loads(line) for line in run("show", "--json").stdout.splitlines()]
    by_name = {row["name"]: row for row in rows}
    assert by_name["voc21"] == {
        "name": "voc21", "classes": 21, "names": 80, "background_names": 44, "texts": "definitions"
    }  # fmt: skip
    assert by_name["ade20k"]["texts"] is None
    assert "coco-stuff" in run("show").stdout


def test_show_one_list(run):
    rows = [json.loads(line) for line in run("show", "voc21", "--json").stdout.splitlines()]
    assert (rows[0]["class"], rows[0]["names"][0], rows[0]["text"]) == ("background", "bed", None)
    assert rows[8] == {
        "id": 8, "class": "cat", "names": ["cat", "feline"], "text": shipped_texts("voc21")["cat"]
    }  # fmt: skip
    assert "feline" in run("show", "voc21").stdout
    assert "frankfurter" in run("show", "synonyms").stdout
    assert json.loads(run("show", "synonyms", "--json").stdout) == shipped_texts("synonyms")
    assert "choose one of ade20k" in sentence(run("show", "voc", code=2))


def test_show_writes_a_start_for_your_own(run, tmp_path):
    run("show", "voc21", "-o", "mine.yaml")
    run("check", "mine.yaml", "-c", "voc21")
    assert "exists: --overwrite replaces it" in sentence(run("show", "voc21", "-o", "mine.yaml", code=2))
    run("show", "synonyms", "-o", "mine.yaml", "--overwrite")
    assert dict(FileSource(tmp_path / "mine.yaml").rows)["cat"] == ("feline",)
    assert "ade20k has no texts" in sentence(run("show", "ade20k", "-o", "x.yaml", code=2))
    assert "--output needs" in sentence(run("show", "-o", "x.yaml", code=2))
