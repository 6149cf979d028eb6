# SPDX-License-Identifier: Apache-2.0
"""Methods and data sets: what is published for both together, and what one takes from the other."""

from dataclasses import fields

import pytest
from itaclip.config import ITACLIPConfig
from itaclip.methods import DATASETS, METHODS
from itaclip.presets import method_names, resolve
from itaclip.text.classes import ClassList

# fields by which a data set is cut into windows and decided upon
PROTOCOL = ("resize_short", "crop", "stride", "logit_scale", "prob_threshold", "area_threshold", "pamr_steps")


def protocol(method, dataset):
    config = resolve(method, dataset).config
    return tuple(getattr(config, name) for name in PROTOCOL)


@pytest.mark.parametrize(
    ("method", "dataset", "expected"),
    [
        ("sclip", "voc21", (336, 224, 112, 65.0, 0.1, 0.1, 0)),
        ("sclip", "context60", (336, 224, 112, 50.0, 0.1, None, 0)),
        ("sclip", "coco-stuff", (448, 224, 112, 40.0, 0.0, None, 0)),
        ("sclip", "cityscapes", (560, 224, 112, 40.0, 0.0, None, 0)),
        ("sclip", "ade20k", (336, 224, 112, 40.0, 0.0, None, 0)),
        ("naclip", "voc21", (336, 2048, 2048, 40.0, 0.1, None, 10)),
        ("naclip", "context60", (336, 224, 112, 40.0, 0.1, None, 10)),
        ("naclip", "coco-stuff", (336, 224, 112, 40.0, 0.0, None, 10)),
        ("scclip", "voc21", (336, 224, 112, 50.0, 0.15, 0.1, 0)),
        ("scclip", "coco-object", (336, 224, 112, 55.0, 0.35, None, 0)),
        ("scclip", "context60", (336, 224, 112, 40.0, 0.15, None, 0)),
        ("scclip", "coco-stuff", (336, 224, 112, 40.0, 0.0, None, 0)),
        ("scclip", "cityscapes", (560, 224, 112, 40.0, 0.0, None, 0)),
        ("clearclip", "voc21", (448, 448, 224, 50.0, 0.5, None, 0)),
        ("clearclip", "coco-object", (448, 448, 224, 50.0, 0.4, None, 0)),
        ("clearclip", "cityscapes", (448, 224, 224, 50.0, 0.0, None, 0)),
        ("vanilla", "voc21", (448, 448, 224, 50.0, 0.2, None, 0)),
    ],
)
def test_settings_of_the_authors(method, dataset, expected):
    """Numbers of the published configurations of each method, field by field."""
    assert protocol(method, dataset) == expected


@pytest.mark.parametrize("method", method_names())
def test_a_data_set_leaves_the_method_as_it_is(method):
    own = METHODS[method]
    for dataset in DATASETS:
        config = resolve(method, dataset).config
        shares = own.datasets.get(dataset, {}).get("attention", {})
        for name, value in {**own.attention, **shares}.items():
            # blocks are numbered for the tower of the data sets' tables
            if name != "mid_layers":
                assert getattr(config.attention, name) == value
        assert config.branches == resolve(method).config.branches


@pytest.mark.parametrize("method", method_names())
def test_only_published_fields_differ_between_data_sets(method):
    allowed = {*PROTOCOL, "lam", "alpha", "attention"}
    plain = resolve(method).config
    for dataset in DATASETS:
        config = resolve(method, dataset).config
        differing = {
            each.name for each in fields(config) if getattr(config, each.name) != getattr(plain, each.name)
        }
        assert differing <= allowed


def test_texts_are_on_where_the_method_has_them():
    assert {name for name in method_names() if resolve(name, "voc21").texts} == {"itaclip", "fast"}


def test_what_is_published_is_said():
    assert resolve("itaclip", "voc21").published
    assert resolve("naclip", "ade20k").published
    for method, dataset, sentence in (
        (
            "itaclip",
            "voc20",
            "settings of ITACLIP for voc20: those for voc21, without its rules",
        ),
        ("clearclip", "ade20k", "no published settings of ClearCLIP for ade20k: those for any image"),
        ("resclip", "voc21", "without its second pass"),
        ("vanilla", "context60", "others are those for ClearCLIP"),
        ("sclip", None, "SCLIP for any image"),
    ):
        settings = resolve(method, dataset)
        assert not settings.published
        assert sentence in settings.source


def test_rules_about_a_background_stay_with_sets_that_have_one():
    for dataset in DATASETS:
        background = ClassList.shipped(dataset).background
        for method in method_names():
            if method == "tiny-shapes":  # one configuration for every image
                continue
            config = resolve(method, dataset).config
            assert background or (config.prob_threshold == 0 and config.area_threshold is None)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", ["itaclip", "sclip", "clearclip"])
def test_every_list_has_the_classes_of_the_data_set(method, dataset):
    shipped, found = ClassList.shipped(dataset), resolve(method, dataset).class_list()
    assert found.labels == shipped.labels
    assert found.background == shipped.background
    first = int(found.background)
    for names, all_names in zip(found.classes[first:], shipped.classes[first:], strict=True):
        assert set(names) <= set(all_names)


def test_names_are_those_that_the_method_uses():
    person = {
        (method, dataset): row
        for method in ("itaclip", "sclip", "clearclip")
        for dataset in ("voc21", "coco-object", "coco-stuff")
        for row in resolve(method, dataset).class_list().classes
        if row[0] == "person"
    }
    assert len(person["sclip", "voc21"]) == 7
    assert len(person["sclip", "coco-object"]) == 8
    assert person["sclip", "coco-stuff"] == person["clearclip", "voc21"] == ("person",)
    assert person["itaclip", "voc21"] == ClassList.shipped("voc21").classes[15]
    lists = {name: resolve(name, "voc21").class_list() for name in ("itaclip", "sclip", "clearclip")}
    assert [len(lists[name].classes[0]) for name in ("itaclip", "sclip", "clearclip")] == [44, 26, 1]
    assert len(lists["sclip"].names) == 26 + 18 + 7 + 5
    with pytest.raises(ValueError, match="have no class list: name the classes"):
        resolve("sclip").class_list()


def test_methods_and_configurations_are_one():
    assert method_names() == ITACLIPConfig.presets() == tuple(METHODS)
    assert resolve("sclip", "voc21").config == ITACLIPConfig.preset("sclip", dataset="voc21")
    assert ITACLIPConfig.preset("sclip", dataset="voc21", stride=56).stride == 56
    with pytest.raises(ValueError, match="method must be one of"):
        resolve("voc21")
