# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from pydantic import TypeAdapter, ValidationError
from vitron.errors import explain
from vitron.protocol.contract import (
    BoxRegion,
    Instruction,
    Invocation,
    Issue,
    MaskRegion,
    PointsRegion,
    PolygonRegion,
    ReferenceRegion,
    Region,
    ScribbleRegion,
    SpecialistSpec,
    Turn,
    json_schemas,
)

BOX = {"kind": "box", "x0": 0.1, "y0": 0.2, "x1": 0.5, "y1": 0.9}
REGIONS = [
    BoxRegion(x0=0, y0=0, x1=1, y1=0.5, frame=3),
    PolygonRegion(points=((0, 0), (1, 0), (0.5, 1))),
    MaskRegion(size=(2, 3), counts=(2, 4)),
    PointsRegion(points=((0.5, 0.5), (0, 1)), positive=(True, False)),
    ScribbleRegion(strokes=(((0.1, 0.1), (0.2, 0.2)), ((1, 1),))),
    ReferenceRegion(name="mask_12"),
]


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.kind)
def test_a_region_survives_json_and_keeps_its_kind(region):
    again = TypeAdapter(Region).validate_json(region.model_dump_json())
    assert again == region
    assert type(again) is type(region)


def test_a_turn_survives_json():
    call = Invocation(
        module="image_editing",
        instruction=(Instruction(verb="remove", text="the dog"), Instruction(text="and its shadow")),
        args={"input": "img_1", "seed": 3, "fast": True, "strength": 0.5},
        region=REGIONS[2],
        frames=(2, 7),
        source=(4, 90),
    )
    turn = Turn(text="Sure.", invocations=(call,), issues=(Issue(code="bad_region", message="no"),))
    again = Turn.model_validate_json(turn.model_dump_json())
    assert again == turn
    # JSON tells true from 1 and 3 from 3.0, and so must the models
    assert [type(value) for value in again.invocations[0].args.values()] == [str, int, bool, float]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x1": 0.1}, "needs its right edge beyond the left"),
        ({"y1": 0.1}, "its bottom beyond the top, got"),
        ({"x1": 1.01}, "less than or equal to 1"),
        ({"x0": -0.01}, "greater than or equal to 0"),
        ({"x0": float("nan")}, "finite number"),
        ({"frame": -1}, "greater than or equal to 0"),
        ({"frame": 1.0}, "valid integer"),
        ({"colour": "red"}, "Extra inputs"),
        ({"kind": "circle"}, "does not match any of the expected tags"),
    ],
)
def test_a_box_outside_the_image_or_reversed_is_refused(change, message):
    assert TypeAdapter(Region).validate_python(BOX).corners == (0.1, 0.2, 0.5, 0.9)
    with pytest.raises(ValidationError, match=message) as caught:
        TypeAdapter(Region).validate_python(BOX | change)
    assert "\n" not in explain(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "polygon", "points": [(0, 0), (1, 1)]}, "at least 3"),
        ({"kind": "polygon", "points": [(0, 0)] * 4097}, "at most 4096"),
        ({"kind": "mask", "size": (2, 2), "counts": (1, 2)}, "add up to 2 x 2 = 4, got 3"),
        ({"kind": "mask", "size": (2, 2), "counts": "0~"}, "from '0' to 'o'"),
        ({"kind": "mask", "size": (0, 2), "counts": ()}, "greater than or equal to 1"),
        ({"kind": "mask", "size": (20_000, 20_000), "counts": (400_000_000,)}, "at most 100000000 pixels"),
        ({"kind": "points", "points": []}, "at least 1"),
        ({"kind": "points", "points": [(0, 0)], "positive": (True, True)}, "got 2 for 1 points"),
        ({"kind": "points", "points": [(0, 0)], "positive": (False,)}, "at least one point must be positive"),
        ({"kind": "scribble", "strokes": []}, "at least 1"),
        ({"kind": "scribble", "strokes": [[(0, 2)]]}, "less than or equal to 1"),
        ({"kind": "ref", "name": "../mask_1"}, "match pattern"),
        ({"kind": "ref", "name": "img_1"}, "match pattern"),
    ],
)
def test_other_regions_that_are_none_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Region).validate_python(fields)


def test_points_that_are_all_positive_have_one_spelling():
    point = ((0.5, 0.5),)
    assert PointsRegion(points=point, positive=(True,)) == PointsRegion(points=point)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"module": "Image Segmentation"}, "match pattern"),
        ({"module": "x", "instruction": [{"verb": " ", "text": "\n"}]}, "needs a verb or a text"),
        ({"module": "x", "instruction": [{"verb": "a:b"}]}, "match pattern"),
        ({"module": "x", "frames": (4, 3)}, "must not come before the first"),
        ({"module": "x", "args": {"A B": 1}}, "match pattern"),
        ({"module": "x", "args": {"a": [1]}}, "valid"),
        ({"module": "x", "shell": "ls"}, "Extra inputs"),
    ],
)
def test_a_call_that_is_none_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Invocation.model_validate(fields)


def test_nothing_can_be_changed_later():
    with pytest.raises(ValidationError, match="frozen"):
        Turn().text = "x"


def test_a_call_with_trouble_is_refused_with_its_first_message():
    issues = (
        Issue(code="repeated_tag", message="elsewhere", invocation=0),
        Issue(code="bad_region", message="outside", invocation=1),
    )
    turn = Turn(issues=issues)
    assert [turn.refusal(index) for index in range(3)] == ["elsewhere", "outside", None]


def test_the_schemas_are_json_and_name_every_kind_of_region():
    schemas = json.loads(json.dumps(json_schemas()))
    assert schemas["Turn"]["additionalProperties"] is False
    assert set(schemas["Region"]["discriminator"]["mapping"]) == {region.kind for region in REGIONS}
    assert "memory_bytes" in schemas["SpecialistSpec"]["properties"]


@pytest.mark.parametrize(
    "change", [{"tasks": ()}, {"outputs": ("sound",)}, {"name": "My Name"}, {"memory_bytes": -1}]
)
def test_a_specialist_must_say_what_it_does(change):
    fields = {"name": "a", "summary": "b", "tasks": ("x",), "outputs": ("image",), "licence": "Apache-2.0"}
    assert SpecialistSpec.model_validate(fields).deterministic
    with pytest.raises(ValidationError):
        SpecialistSpec.model_validate(fields | change)


def test_an_error_is_explained_on_one_line():
    assert explain(ValueError("a\n b")) == "a b"
    assert explain(KeyError()) == "KeyError"
    with pytest.raises(ValidationError) as caught:
        Invocation.model_validate({"module": "x", "frames": (4, "a")})
    assert explain(caught.value) == "frames.1: Input should be a valid integer"
