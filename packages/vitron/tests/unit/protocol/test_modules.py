# SPDX-License-Identifier: Apache-2.0
import pytest
from vitron.protocol import MODULES, Argument, Module, ModuleRegistry, parse
from vitron.protocol.contract import Instruction


def test_the_letters_are_those_of_the_published_code():
    names = {module.letter: module.name for module in MODULES}
    assert names == {
        "A": "text_to_image",
        "B": "image_segmentation",
        "C": "image_editing",
        "D": "text_to_video",
        "E": "video_segmentation",
        "F": "video_editing",
        "G": "image_to_video",
        "R": "restoration",
    }


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("e", "E"),
        ("Video Tracking", "E"),
        ("video-editing", "F"),
        (" TEXT_TO_IMAGE\n", "A"),
        ("H", None),
    ],
)
def test_names_are_read_in_any_case_and_spacing(text, letter):
    module = MODULES.resolve(text)
    assert (module and module.letter) == letter


@pytest.mark.parametrize("module", [*MODULES], ids=lambda module: module.name)
def test_every_verb_leads_to_an_action_that_is_a_verb(module):
    assert set(module.verbs.values()) <= set(module.verbs)
    assert not set(module.verbs) & set(module.table)
    assert module.action(Instruction(text="x")) == next(iter(module.verbs))


def test_a_verb_means_its_action():
    editing = MODULES["image_editing"]
    assert editing.action(Instruction(verb="colour", text="x")) == "recolour"
    assert editing.read("Insert :  a star ") == Instruction(verb="insert", text="a star")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("integer", "-12", -12),
        ("integer", "1.5", None),
        ("integer", "9" * 30, None),
        ("name", "img_3", "img_3"),
        ("name", "img_0", None),
        ("size", "64x48", "64x48"),
        ("size", "0x48", None),
        ("text", "two words", "two words"),
        ("text", "", None),
    ],
)
def test_arguments_are_read_by_their_kind(kind, text, value):
    argument = Argument(name="a", kind=kind, summary="s")
    assert argument.read(text) == value
    assert argument.accepts(value) is (value is not None)


def test_a_module_can_be_added():
    depth = Module(
        name="depth",
        letter="Q",
        summary="say how far things are",
        verbs={"measure": "measure"},
        inputs=("image",),
        output="image",
        arguments=(Argument(name="unit", kind="text", summary="of length"),),
    )
    more = MODULES.with_modules(depth)
    reply = "<module>Q</module><instruction>measure: it</instruction><instruction>unit: m</instruction>"
    assert parse(reply, modules=more).invocations[0].args == {"unit": "m"}
    assert parse(reply).invocations == ()
    with pytest.raises(ValueError, match="two modules are called 'Q'"):
        ModuleRegistry([*more, Module(**{**_fields(depth), "name": "deep"})])


def _fields(module):
    names = ("name", "letter", "summary", "verbs", "inputs", "output")
    return {name: getattr(module, name) for name in names}
