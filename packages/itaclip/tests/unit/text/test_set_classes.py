# SPDX-License-Identifier: Apache-2.0
"""What ``ITACLIP.set_classes`` takes for texts, templates and progress, and what the command line takes."""

from pathlib import Path

import pytest
import torch
from itaclip import ITACLIP, AttentionConfig, ITACLIPConfig
from itaclip.cli.options import ClassOptions, ModelOptions, read_templates
from itaclip.text import CallableSource, shipped_texts

CONFIG = ITACLIPConfig(
    attention=AttentionConfig(mid_layers=()),
    branches=("identity",),
    pamr_steps=0,
    templates="plain",
    alpha=0.5,
)
TEXTS = {"cat": "a pet that purrs", "dog": "a pet that barks"}


@pytest.fixture
def features(tiny_folder, tmp_path):
    segmenter = ITACLIP.from_pretrained(tiny_folder, preset=CONFIG, device="cpu")

    def of(**options):
        return segmenter.set_classes(["cat", "dog"], **options).text_features

    return of


def test_texts_come_in_every_form(features, tmp_path):
    expected = features(aux=TEXTS)
    assert not torch.allclose(expected, features(), atol=1e-3)
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"{name} >={text}\n" for name, text in TEXTS.items()))
    forms = [
        TEXTS.__getitem__,
        CallableSource(TEXTS.__getitem__),
        {name: [text] for name, text in TEXTS.items()},
        {**TEXTS, "cow": "for another list"},
        file,
        str(file),
    ]
    for aux in forms:
        assert torch.equal(features(aux=aux), expected)
    shipped = shipped_texts("definitions")
    assert torch.equal(features(aux="definitions"), features(aux={name: shipped[name] for name in TEXTS}))


def test_several_texts_of_a_class_are_averaged(features):
    both = features(aux={"cat": ["a pet that purrs", "a small tiger"], "dog": "a pet that barks"})
    assert not torch.allclose(both[0], features(aux=TEXTS)[0], atol=1e-4)
    assert torch.equal(both[1], features(aux=TEXTS)[1])


def test_templates_of_ones_own(features):
    names = features()
    assert torch.equal(features(templates=["{}"]), names)
    one = features(templates="a map of {}")
    assert torch.equal(one, features(templates=["a map of {}"]))
    assert not torch.allclose(one, names, atol=1e-3)
    with pytest.raises(ValueError, match=r"must hold \{\} once"):
        features(templates=["a map"])


def test_progress_counts_names_and_texts(features):
    seen = []
    features(aux=TEXTS, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_command_line_takes_templates_and_files_of_them(tmp_path):
    file = tmp_path / "templates.txt"
    file.write_text("a map of {}\na drawing of {}\n")
    assert read_templates([]) is None
    assert read_templates(["{} from above", str(file)]) == ("{} from above", "a map of {}", "a drawing of {}")
    setup = ClassOptions(classes="cat", template=[str(file)]).setup(ModelOptions(), None, "auto")
    assert setup.templates == ("a map of {}", "a drawing of {}")
    assert setup.settings()["templates"] == setup.templates
    with pytest.raises(ValueError, match="cannot be read"):
        read_templates([str(Path("none.txt"))])


def test_common_backgrounds_are_in_the_words_of_the_model():
    photos = ClassOptions(classes="cat", background=True).parse("ViT-B-16")
    shapes = ClassOptions(classes="red thing", background=True).parse("tiny-shapes")
    assert "sky" in photos.classes[0]
    assert shapes.classes[0] == ("leaves", "gradient", "waves", "clouds", "tiles")
    with pytest.raises(ValueError, match="--background-names is empty"):
        ClassOptions(classes="cat", background_names=" ,").parse()
