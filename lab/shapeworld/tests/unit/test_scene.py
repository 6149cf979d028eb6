# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from shapeworld import Scene, SceneConfig, draw_scene, scene_rng
from shapeworld.vocabulary import HELD_OUT, MATERIALS, SHAPES


def pairs(scene: Scene) -> list[tuple[str, str]]:
    return [(thing.colour, thing.shape) for thing in scene.things]


def test_same_arguments_same_scene_others_differ() -> None:
    assert draw_scene(3, 7) == draw_scene(3, 7)
    others = [
        draw_scene(3, 8),
        draw_scene(4, 7),
        draw_scene(3, 7, split="val"),
        draw_scene(3, 7, split="test"),
    ]
    assert len({draw_scene(3, 7), *others}) == 5


def test_streams_of_different_purposes_differ() -> None:
    assert scene_rng(0, 1, 2).random() == scene_rng(0, 1, 2).random() != scene_rng(0, 1, 3).random()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_held_out_pairs_stay_away(split: str) -> None:
    assert not any(HELD_OUT & set(pairs(draw_scene(0, i, split=split))) for i in range(2000))


def test_every_novel_scene_holds_a_held_out_pair() -> None:
    seen = [HELD_OUT & set(pairs(draw_scene(0, i, split="novel"))) for i in range(500)]
    assert all(seen)
    assert frozenset().union(*seen) == HELD_OUT


def test_each_shape_has_one_held_out_pair() -> None:
    assert sorted(shape for _, shape in HELD_OUT) == sorted(SHAPES)
    assert len({colour for colour, _ in HELD_OUT}) == len(SHAPES)


def test_distractors_share_one_word() -> None:
    config = SceneConfig(num_things=(0, 1), distractors=1.0)
    for i in range(300):
        (a, b), (c, d) = pairs(draw_scene(0, i, config=config))
        assert (a == c) != (b == d)


def test_weights_of_the_number_of_things_are_kept() -> None:
    config = SceneConfig(num_things=(0.5, 0, 0.5))
    counts = np.bincount([len(draw_scene(0, i, config=config).things) for i in range(2000)], minlength=4)
    assert counts[2] == 0
    assert abs(counts[1] - 1000) < 120


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_things": ()}, "num_things must be 1 to 6 weights"),
        ({"num_things": (0.0, 0.0)}, "num_things must be"),
        ({"num_things": (1,) * 7}, "num_things must be"),
        ({"materials": ("wool",)}, "materials must be some of"),
        ({"backgrounds": ()}, "backgrounds must be some of"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneConfig(**settings)


def test_unknown_split_and_preset_are_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        draw_scene(0, 0, split="dev")
    with pytest.raises(ValueError, match="preset must be"):
        SceneConfig.preset("hard")


def test_simple_preset_holds_fewer_things() -> None:
    config = SceneConfig.preset("simple")
    assert max(len(draw_scene(0, i, config=config).things) for i in range(200)) == 3
    assert set(config.materials) == set(MATERIALS)
