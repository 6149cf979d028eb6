# SPDX-License-Identifier: Apache-2.0
"""How dialogues are written for language models of several families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TEMPLATES", "ChatTemplate"]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How a dialogue is written.

    Attributes:
        start: Before all.
        system: Around what the system says: before, behind.
        user: Around what the user says.
        assistant: Before what the assistant says.
        end: The mark that ends a reply; it is learnt.
        after: Behind that mark; it is not.
        default_system: What the system says where nothing is given.
    """

    start: str = ""
    system: tuple[str, str] = ("", "")
    user: tuple[str, str] = ("", "")
    assistant: str = ""
    end: str = "<|im_end|>"
    after: str = ""
    default_system: str = ""


TEMPLATES: Mapping[str, ChatTemplate] = {
    "compact": ChatTemplate(user=("<|user|>", ""), assistant="<|assistant|>", system=("<|system|>", "")),
    "chatml": ChatTemplate(
        system=("<|im_start|>system\n", "<|im_end|>\n"),
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant="<|im_start|>assistant\n",
        after="\n",
    ),
    "vicuna": ChatTemplate(
        system=("", " "),
        user=("USER: ", " "),
        assistant="ASSISTANT: ",
        end="</s>",
        default_system="A chat between a curious user and an artificial intelligence assistant.",
    ),
    "llama3": ChatTemplate(
        start="<|begin_of_text|>",
        system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
    ),
}
