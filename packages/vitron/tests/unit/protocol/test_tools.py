# SPDX-License-Identifier: Apache-2.0
import json
import re

import pytest
from vitron.protocol import MODULES, from_message, parse, to_tool_calls, tool_schemas
from vitron.protocol.contract import BoxRegion, Instruction, Invocation, Turn


def message(name, arguments, **more):
    return {
        "role": "assistant",
        "tool_calls": [{"id": "1", "function": {"name": name, "arguments": arguments}}],
    } | more


def test_calls_survive_the_way_out_and_back():
    turn = Turn(
        invocations=(
            Invocation(
                module="image_editing",
                instruction=(
                    Instruction(verb="remove", text="the sign: <no> entry"),
                    Instruction(text="seed: 3"),
                ),
                args={"input": "img_1", "seed": -4},
                region=BoxRegion(x0=0.123456, y0=0, x1=0.7, y1=1),
                frames=(0, 3),
            ),
            Invocation(module="text_to_image", instruction=(Instruction(text="ein Hündchen"),)),
        )
    )
    calls = to_tool_calls(turn)
    assert json.loads(json.dumps(calls)) == calls
    assert [call["function"]["name"] for call in calls] == ["image_editing", "text_to_image"]
    assert from_message({"content": None, "tool_calls": calls}).invocations == turn.invocations


def test_a_request_names_every_module():
    tools = json.loads(json.dumps(tool_schemas()))
    assert [tool["function"]["name"] for tool in tools] == [module.name for module in MODULES]
    editing = tools[2]["function"]["parameters"]
    assert editing["required"] == ["instruction"]
    assert editing["properties"]["input"]["pattern"].startswith("^")
    assert "input" not in tools[0]["function"]["parameters"]["properties"]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"instruction": ["segment: the dog"]}',
        '{"instruction": "segment: the dog"}',
        {"instruction": "segment: the dog"},
    ],
)
def test_arguments_may_be_json_or_an_object(arguments):
    (call,) = from_message(message("image segmentation", arguments)).invocations
    assert call.instruction == (Instruction(verb="segment", text="the dog"),)


def test_a_region_may_be_its_text():
    arguments = {"instruction": ["a", "seed: 5"], "region": "[0, 0, 999, 333] | 2, 4"}
    (call,) = from_message(message("E", arguments)).invocations
    assert call.region.corners == (0, 0, 1, 333 / 999)
    assert call.frames == (2, 4)
    assert call.args == {"seed": 5}


def test_content_comes_first_and_may_hold_calls_too():
    parts = [
        {"type": "text", "text": "Hi <module>A</module><instruction>x</instruction>"},
        {"type": "image_url"},
    ]
    turn = from_message(message("B", {"instruction": "y"}, content=parts))
    assert turn.text == "Hi "
    assert [call.module for call in turn.invocations] == ["text_to_image", "image_segmentation"]
    old = {"content": "x", "function_call": {"name": "B", "arguments": '{"instruction": "y"}'}}
    assert len(from_message(old).invocations) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("rm", "{}", "no module 'rm'"),
        ("B", "{", "are not JSON"),
        ("B", "[1]", "must be an object, got list"),
        ("B", '{"instruction": 3}', "a text or a list of texts, got int"),
        ("B", '{"instruction": [3]}', "a text or a list of texts, got list"),
        ("B", '{"instruction": []}', "called without an instruction"),
        ("B", "", "called without an instruction"),
        ("B", '{"instruction": "a", "shell": "ls"}', "no argument shell"),
        ("B", '{"instruction": "a", "seed": "3"}', "no argument seed that can be '3'"),
        ("B", '{"instruction": "a", "region": "[9, 9, 1, 1]"}', "right edge beyond"),
        (
            "B",
            '{"instruction": "a", "region": {"kind": "box", "x0": 2, "y0": 0, "x1": 3, "y1": 1}}',
            "less than",
        ),
        ("B", '{"instruction": "a", "region": 7}', "valid dictionary"),
        ("B", '{"instruction": "a", "frames": [4, 2]}', "must not come before"),
        ("B", '{"instruction": "' + "a" * (1 << 20) + '"}', "more than 1048576 characters"),
        ("B", '{"instruction": ' + "[" * 100_000, "JSON|recursion"),
    ],
)
def test_a_bad_call_is_an_issue_and_no_exception(name, arguments, problem):
    turn = from_message(message(name, arguments, content="Well."))
    assert turn.text == "Well."
    assert turn.invocations == ()
    (issue,) = turn.issues
    assert issue.code == "bad_call"
    assert re.search(problem, issue.message)
    assert "\n" not in issue.message


def test_every_call_is_read_and_one_without_words_may_name_frames():
    turn = parse("<module>E</module><region>| 3, 7</region>" * 70)
    found = from_message({"tool_calls": to_tool_calls(turn)})
    assert [call.frames for call in found.invocations] == [(3, 7)] * 70
    assert found.issues == ()


def test_half_a_surrogate_pair_is_replaced():
    (call,) = from_message(message("B", '{"instruction": "the \\ud800 dog"}')).invocations
    assert call.instruction[0].text == "the \ufffd dog"


@pytest.mark.parametrize("calls", [[None], ["x"], [{}], [{"function": 3}]])
def test_calls_that_are_none_are_issues(calls):
    assert [issue.code for issue in from_message({"tool_calls": calls}).issues] == ["bad_call"]


def test_nothing_is_read_from_nothing():
    assert from_message({}) == Turn()
    assert from_message({"content": 3, "tool_calls": "x"}) == Turn()


def test_an_unknown_module_cannot_be_sent():
    with pytest.raises(ValueError, match="no module 'sing'"):
        to_tool_calls(Turn(invocations=(Invocation(module="sing"),)))
