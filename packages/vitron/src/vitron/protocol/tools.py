# SPDX-License-Identifier: Apache-2.0
"""Calls as the function calls of OpenAI's chat interface, in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from vitron.errors import RegionError, explain
from vitron.protocol.contract import Invocation, Issue, Region, Turn
from vitron.protocol.modules import MODULES, Module, ModuleRegistry
from vitron.protocol.parser import parse
from vitron.protocol.regions.text import parse_region

MAX_ARGUMENTS = 1 << 20  # characters of one call's arguments

_REGION = TypeAdapter[Any](Region)
_OWN = ("instruction", "region", "frames")


def invocation_schema(module: Module) -> dict[str, Any]:
    """Return the JSON schema of the arguments of a call of one module."""
    verbs = ", ".join(dict.fromkeys(module.verbs.values()))
    return {
        "type": "object",
        "properties": {
            "instruction": {
                "type": "array",
                "items": {"type": "string"},
                "description": f"what to do, each as 'verb: object' with a verb of {verbs}",
            },
            "region": {
                "type": "string",
                "description": "where, as [left, top, right, bottom] from 0 to 999, or the name of a mask",
            },
            "frames": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0},
                "minItems": 2,
                "maxItems": 2,
                "description": "first and last frame of the part of a video that is meant",
            },
            **{name: argument.schema for name, argument in module.table.items()},
        },
        "required": ["instruction"],
        "additionalProperties": False,
    }


def tool_schemas(*, modules: ModuleRegistry = MODULES) -> list[dict[str, Any]]:
    """Return the modules as a request's ``tools``."""
    return [
        {
            "type": "function",
            "function": {
                "name": module.name,
                "description": module.summary,
                "parameters": invocation_schema(module),
            },
        }
        for module in modules
    ]


def to_tool_calls(turn: Turn, *, modules: ModuleRegistry = MODULES) -> list[dict[str, Any]]:
    """Return the calls of a turn as a message's ``tool_calls``.

    Regions keep their kind and their exact coordinates, as objects.

    Raises:
        ValueError: If the module of a call, or its verb, is unknown.
    """
    calls = list[dict[str, Any]]()
    for index, call in enumerate(turn.invocations):
        if call.module not in modules:
            raise ValueError(f"there is no module {call.module!r}")
        module = modules[call.module]
        arguments: dict[str, Any] = {"instruction": [module.write(said) for said in call.instruction]}
        if call.region is not None:
            arguments["region"] = call.region.model_dump(mode="json", exclude_none=True)
        if call.frames is not None:
            arguments["frames"] = list(call.frames)
        text = json.dumps(arguments | call.args, ensure_ascii=False)
        function = {"name": call.module, "arguments": text}
        calls.append({"id": f"call_{index + 1}", "type": "function", "function": function})
    return calls


def from_message(message: Mapping[str, Any], *, modules: ModuleRegistry = MODULES) -> Turn:
    """Parse an assistant message: its content with calls in tags, then its function calls.

    Args:
        message: Message with ``content`` (text, or parts of which the text is used), ``tool_calls``, or the
            older ``function_call``. ``arguments`` may be JSON or an object.
        modules: Modules that may be called.

    Returns:
        A turn; whatever cannot be parsed is one of its issues, never an exception.

    Example:
        >>> call = {"function": {"name": "B", "arguments": '{"instruction": "segment: the dog"}'}}
        >>> from_message({"content": None, "tool_calls": [call]}).invocations[0].instruction[0].text
        'the dog'
    """
    turn = parse(_content(message.get("content")), modules=modules)
    calls, issues = list(turn.invocations), list(turn.issues)
    for function in _functions(message):
        try:
            calls.append(_read(function, modules))
        except (RegionError, ValidationError, ValueError, RecursionError) as error:
            issues.append(Issue(code="bad_call", message=explain(error)))
    return turn.model_copy(update={"invocations": tuple(calls), "issues": tuple(issues)})


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = [cast("Mapping[str, object]", part) for part in content if isinstance(part, Mapping)]
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


def _functions(message: Mapping[str, Any]) -> list[object]:
    found: list[object] = []
    calls = message.get("tool_calls")
    for call in cast("list[object]", calls) if isinstance(calls, list) else []:
        found.append(cast("dict[str, object]", call).get("function") if isinstance(call, dict) else call)
    if message.get("function_call"):
        found.append(message["function_call"])
    return found


def _read(function: object, modules: ModuleRegistry) -> Invocation:
    if not isinstance(function, dict):
        raise ValueError(f"a function call must be an object with a name, got {type(function).__name__}")
    fields = cast("dict[str, object]", function)
    name = str(fields.get("name", ""))
    module = modules.resolve(name)
    if module is None:
        known = ", ".join(module.name for module in modules)
        raise ValueError(f"there is no module {name[:64]!r}: known are {known}")
    arguments = _arguments(module, fields.get("arguments"))
    said = arguments.pop("instruction", [])
    region, frames = _region(arguments.pop("region", None))
    frames = arguments.pop("frames", frames)
    read = [module.read(str(text)) for text in _listed(module, said)]
    for key, value in arguments.items():
        if key not in module.table or not module.table[key].accepts(value):
            raise ValueError(f"{module.name} has no argument {key[:64]} that can be {str(value)[:64]!r}")
    more = dict(entry for entry in read if isinstance(entry, tuple))
    call = {
        "module": module.name,
        "instruction": [entry for entry in read if entry is not None and not isinstance(entry, tuple)],
        "args": more | arguments,
        "region": region,
        "frames": frames,
    }
    found = Invocation.model_validate(call)
    if not (found.instruction or found.args or found.region or found.frames):
        raise ValueError(f"{module.name} is called without an instruction")
    return found


def _arguments(module: Module, raw: object) -> dict[str, Any]:
    if isinstance(raw, str):
        if len(raw) > MAX_ARGUMENTS:
            raise ValueError(f"arguments of {module.name} have more than {MAX_ARGUMENTS} characters")
        try:
            raw = json.loads(raw or "{}")
        except ValueError as error:
            raise ValueError(f"arguments of {module.name} are not JSON: {explain(error)}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"arguments of {module.name} must be an object, got {type(raw).__name__}")
    return {str(key): value for key, value in cast("dict[object, Any]", raw).items()}


def _listed(module: Module, said: object) -> list[object]:
    if isinstance(said, str):
        return [said]
    if isinstance(said, list) and all(isinstance(text, str) for text in cast("list[object]", said)):
        return cast("list[object]", said)
    raise ValueError(
        f"instruction of {module.name} must be a text or a list of texts, got {type(said).__name__}"
    )


def _region(raw: object) -> tuple[object, object]:
    if raw is None:
        return None, None
    return parse_region(raw) if isinstance(raw, str) else (_REGION.validate_python(raw), None)
