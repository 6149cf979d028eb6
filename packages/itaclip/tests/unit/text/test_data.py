# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from itaclip.text import ClassList, as_source, aux_texts, shipped_classes, shipped_texts
from itaclip.text.prompts import build_prompts, tokenize
from itaclip.text.sources import SHIPPED_KIND

# Source: the class files of the method; classes, names, background words
SIZES = {
    "voc21": (21, 80, 44),
    "voc20": (20, 35, 0),
    "context60": (60, 75, 1),
    "context59": (59, 73, 0),
    "coco-object": (81, 119, 26),
    "coco-stuff": (171, 183, 0),
    "cityscapes": (19, 26, 0),
    "ade20k": (150, 150, 0),
}


def test_every_benchmark_is_there():
    assert set(shipped_classes()) == set(SIZES)
    with pytest.raises(ValueError, match="no class list 'voc'"):
        ClassList.shipped("voc")


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    classes = ClassList.shipped(name)
    words = len(classes.classes[0]) if classes.background else 0
    assert (len(classes), len(classes.names), words) == SIZES[name]


def test_ids_stand_where_the_benchmarks_have_them():
    def id_of(benchmark, label):
        return ClassList.shipped(benchmark).labels.index(label)

    assert [id_of("voc21", x) for x in ("background", "aeroplane", "cow", "person", "television")] == [
        0,
        1,
        10,
        15,
        20,
    ]
    assert [id_of("voc20", x) for x in ("aeroplane", "television")] == [0, 19]
    assert [id_of("context60", x) for x in ("background", "aeroplane", "person", "wood")] == [0, 1, 37, 59]
    assert [id_of("coco-object", x) for x in ("person", "toothbrush")] == [1, 80]
    assert [id_of("coco-stuff", x) for x in ("person", "toothbrush", "banner", "wood")] == [0, 79, 80, 170]
    assert [id_of("cityscapes", x) for x in ("road", "person", "bicycle")] == [0, 11, 18]
    assert [id_of("ade20k", x) for x in ("wall", "door", "rug", "boat", "flag")] == [0, 14, 28, 76, 149]


@pytest.mark.parametrize(("larger", "smaller"), [("voc21", "voc20"), ("context60", "context59")])
def test_the_lists_without_background_are_the_rest(larger, smaller):
    def drop(names):
        # the word body tells people from background
        return tuple(name for name in names if name != "body")

    rest = ClassList.shipped(larger).classes[1:]
    assert tuple(map(drop, rest)) == ClassList.shipped(smaller).classes


def test_only_bed_is_both_background_and_class():
    for name in SIZES:
        classes = ClassList.shipped(name)
        if classes.background:
            both = set(classes.classes[0]) & {name for names in classes.classes[1:] for name in names}
            assert both == ({"bed"} if name == "coco-object" else set())


@pytest.mark.parametrize(
    ("name", "rows"),
    [("voc21", 20), ("context60", 59), ("coco-stuff", 171), ("coco-object", 80), ("cityscapes", 19)],
)
def test_every_class_has_one_text_of_its_own(name, rows):
    classes = ClassList.shipped(name)
    texts = aux_texts(name, classes)
    assert len(texts) == rows == len(classes.foreground)
    assert [len(row) for row in texts] == [1] * rows
    assert len({row[0].casefold() for row in texts}) == rows
    assert list(shipped_texts(name).items()) == [
        (label, row[0]) for label, row in zip(classes.foreground, texts, strict=True)
    ]


@pytest.mark.parametrize("name", SHIPPED_KIND)
def test_texts_are_no_names_of_classes_themselves(name):
    labels = {label.casefold() for label in ClassList.shipped(name).foreground}
    assert labels.isdisjoint(text.casefold() for text in shipped_texts(name).values())


def test_no_text_is_left_over():
    for kind in ("definitions", "synonyms"):
        used = {name for data, own in SHIPPED_KIND.items() if own == kind for name in shipped_texts(data)}
        spare = set(shipped_texts(kind)) - used
        # names that other data sets and users have for these things
        assert spare <= {"airplane", "motorcycle", "traffic light", "television", "sofa", "couch"}, spare


def test_definitions_are_short_and_have_no_stop():
    for name, text in shipped_texts("definitions").items():
        assert 8 <= len(text.split()) <= 20, name
        assert re.fullmatch(r"[a-z][a-z ,'-]*[a-z]", text), name
        assert not text.startswith(("a ", "an ", "the ")), name


def test_synonyms_are_one_word_and_new():
    for name, text in shipped_texts("synonyms").items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)?", text), name
        assert text != name.casefold()


@pytest.mark.parametrize("kind", ["definitions", "synonyms"])
def test_prompts_fit_the_context(kind, tokenizer):
    prompts = [prompt for text in shipped_texts(kind).values() for prompt in build_prompts(text)]
    tokens = tokenize(tokenizer, prompts, 77)
    # as long as the texts of the method at most
    assert int((tokens != 0).sum(1).max()) <= 49


def test_bare_kinds_serve_what_they_know():
    classes = ClassList.build(["cat", "unicorn"])
    assert aux_texts("synonyms", classes) == [("feline",), ()]
    with pytest.raises(ValueError, match="no auxiliary text for 'unicorn'"):
        aux_texts("coco-object", classes)
    with pytest.raises(ValueError, match="no auxiliary text for 'unicorn'"):
        as_source("synonyms").aux(["unicorn"])
    with pytest.raises(
        ValueError, match="no auxiliary texts 'ade20k': choose one of definitions, synonyms, "
    ):
        shipped_texts("ade20k")
