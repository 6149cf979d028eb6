# SPDX-License-Identifier: Apache-2.0
import pytest
from itaclip.text import Task

DEFINE, SAME = Task(), Task(kind="synonyms")
GOOD = "small furry pet with whiskers"


@pytest.mark.parametrize(
    "raw",
    [
        GOOD,
        f"  {GOOD}.\n",
        f'"{GOOD}."',
        f"\u201c{GOOD}\u201d",
        f"cat >={GOOD}",
        f"Cat >= '{GOOD}'",
        f"**Cat:** {GOOD}.",
        f"Cat: Definition: {GOOD}",
        f"- {GOOD}",
        f"1. {GOOD}",
        f">={GOOD}\n\nIs there anything else?",
        f"```\n{GOOD}\n```",
        f"### Answer\n{GOOD}",
        f"<think>It is an animal:\na pet.</think>\n\n{GOOD}",
        GOOD.replace(" ", "  "),
    ],
)
def test_answers_are_cleaned(raw):
    assert DEFINE.clean(raw, "cat") == GOOD
    assert DEFINE.fault(GOOD, "cat") is None


@pytest.mark.parametrize(
    "text", ["cat-sized pet with whiskers", "pets, such as cats, dogs...", "wall: built of brick"]
)
def test_good_text_stays(text):
    assert DEFINE.clean(text, "cat") == text


@pytest.mark.parametrize("name", ["c++ (code)", "wall-brick", "[x]"])
def test_names_are_no_patterns(name):
    assert DEFINE.clean(f"{name}: {GOOD}", name) == GOOD


@pytest.mark.parametrize("raw", ["", "\n\n", "<think>so many thoughts", '""', "cat >="])
def test_nothing_left(raw):
    assert DEFINE.fault(DEFINE.clean(raw, "cat"), "cat") == "it is empty"


@pytest.mark.parametrize(
    ("task", "text", "fault"),
    [
        (DEFINE, "Cat", "it repeats the name"),
        (DEFINE, "furry pet", "'furry pet' is too short for a definition"),
        (DEFINE, "a furry \ufffd pet", "it holds characters that are no text"),
        (DEFINE, "a furry\x13 small pet", "it holds characters that are no text"),
        (DEFINE, "a b c >= d", "it holds the mark >="),
        (DEFINE, "word " * 51, "it has 51 words and may have 50"),
        (DEFINE, "word " * 50, None),
        (Task(max_words=4), GOOD, "it has 5 words and may have 4"),
        (SAME, "feline", None),
        (SAME, "blow-dryer", None),
        (SAME, "k\u00e4tzchen", None),
        (SAME, "cat", "it repeats the name"),
        (SAME, "house cat", "'house cat' is not one word"),
        (SAME, "feline,", "'feline,' is not one word"),
        (SAME, "cat9", "'cat9' is not one word"),
    ],
)
def test_faults(task, text, fault):
    assert task.fault(text, "cat") == fault


def test_the_question_names_the_thing_and_the_rules():
    system, user = SAME.ask("cat")
    assert (system["role"], user) == ("system", {"role": "user", "content": "cat:"})
    assert "one single word" in system["content"]
    again = SAME.ask_again([system, user], "house cat", "it is not one word")
    assert [message["role"] for message in again] == ["system", "user", "assistant", "user"]
    assert "it is not one word" in again[-1]["content"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "poems"}, "kind must be one of definitions, synonyms, got 'poems'"),
        ({"max_words": 2}, "max_words must be at least 3, got 2"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_wrong_tasks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Task(**options)
