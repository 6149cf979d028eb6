# SPDX-License-Identifier: Apache-2.0
import pytest
from itaclip.evaluation.datasets import LAYOUTS
from itaclip.evaluation.published import published


@pytest.mark.parametrize(
    ("dataset", "miou"),
    [("coco-stuff", 27.0), ("coco-object", 37.7), ("voc21", 67.9), ("context60", 37.5), ("cityscapes", 40.2)],
)
def test_main_result_of_the_paper_is_the_best(dataset, miou):
    best = published(dataset)[-1]
    assert (best.method, best.setting, best.miou) == ("ITACLIP", "", miou)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_every_number_says_where_it_was_published(dataset):
    results = published(dataset, settings=True)
    assert results
    assert [result.miou for result in results] == sorted(result.miou for result in results)
    for result in results:
        assert "arXiv 2411.12044, Table" in result.source or "README of" in result.source


def test_settings_are_the_papers_ablations():
    extra = set(published("voc21", settings=True)) - set(published("voc21"))
    assert {result.method for result in extra} == {"ITACLIP"}
    strides = {result.setting: result.miou for result in extra if "stride" in result.setting}
    assert strides == {"stride 224": 66.1, "stride 112": 67.1, "stride 56": 67.9}
