# SPDX-License-Identifier: Apache-2.0
import pytest
from itaclip.evaluation.datasets import LAYOUTS
from itaclip.evaluation.published import published
from itaclip.methods import METHODS


@pytest.mark.parametrize(
    ("dataset", "miou"),
    [("coco-stuff", 27.0), ("coco-object", 37.7), ("voc21", 67.9), ("context60", 37.5), ("cityscapes", 40.2)],
)
def test_main_result_of_the_paper(dataset, miou):
    assert [each.miou for each in published(dataset) if each.key == "itaclip"] == [miou]


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_every_number_says_where_it_was_published(dataset):
    results = published(dataset, settings=True)
    assert results
    assert [result.miou for result in results] == sorted(result.miou for result in results)
    for result in results:
        assert any(
            part in result.source for part in ("arXiv 2411.12044, Table", "README of", "comparison in arXiv")
        )
        assert result.setting or result.method not in ("ProxyCLIP", "Trident", "CorrCLIP", "CASS")


def test_one_publication_gives_one_number():
    for dataset in LAYOUTS:
        main = [(each.method, each.setting) for each in published(dataset)]
        assert len(main) == len(set(main))


def test_results_know_the_method_that_runs_here():
    keys = {each.method: each.key for each in published("voc21")}
    assert (keys["Baseline"], keys["SCLIP"], keys["ITACLIP"]) == ("vanilla", "sclip", "itaclip")
    assert (keys["SC-CLIP"], keys["RF-CLIP"], keys["GroupViT"]) == ("scclip", "", "")
    assert {each.key for each in published("voc21")} - {""} <= set(METHODS)


def test_settings_are_the_papers_ablations():
    extra = set(published("voc21", settings=True)) - set(published("voc21"))
    assert {result.method for result in extra} == {"ITACLIP"}
    strides = {result.setting: result.miou for result in extra if "stride" in result.setting}
    assert strides == {"stride 224": 66.1, "stride 112": 67.1, "stride 56": 67.9}
