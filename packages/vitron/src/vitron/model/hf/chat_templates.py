# SPDX-License-Identifier: Apache-2.0
"""Jinja chat templates of several families of language models.

The model generates the text in a ``generation`` block: training learns its tokens, with the end token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["CHAT_TEMPLATES", "ChatTemplate"]

_CONTENT = """\
{%- macro render(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}{{ part.text }}
{%- elif part.type == 'image' -%}<|image|>
{%- elif part.type == 'video' -%}<|video|>
{%- elif part.type == 'region' -%}<|region|>
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""


class ChatTemplate(NamedTuple):
    """A chat template and the token that ends an assistant message.

    Attributes:
        source: Jinja source.
        end_token: Token behind an assistant message.
    """

    source: str
    end_token: str

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens that the template writes; without placeholders of media and regions."""
        found = re.findall(r"<\|[a-z_]+\|>", self.source)
        placeholders = {"<|image|>", "<|video|>", "<|region|>"}
        return tuple(dict.fromkeys([self.end_token, *(each for each in found if each not in placeholders)]))


def _template(
    *,
    user: tuple[str, str],
    system: tuple[str, str],
    assistant: str,
    end_token: str,
    behind: str = "",
    start: str = "",
    default_system: str = "",
) -> ChatTemplate:
    r"""Return a template from the text before and behind each kind of message; ``\n`` is a line break."""

    def text(value: str) -> str:
        return f"{{{{ '{value}' }}}}" if value else ""

    default = (
        f"{{%- if not messages or messages[0].role != 'system' -%}}"
        f"{text(system[0] + default_system + system[1])}{{%- endif -%}}\n"
        if default_system
        else ""
    )
    source = (
        f"{_CONTENT}{text(start)}{default}"
        "{%- for message in messages -%}\n"
        "{%- if message.role == 'assistant' -%}\n"
        f"{text(assistant)}{{%- generation -%}}{{{{ render(message.content) }}}}{text(end_token)}"
        f"{{%- endgeneration -%}}{text(behind)}\n"
        "{%- elif message.role == 'system' -%}\n"
        f"{text(system[0])}{{{{ render(message.content) }}}}{text(system[1])}\n"
        "{%- else -%}\n"
        f"{text(user[0])}{{{{ render(message.content) }}}}{text(user[1])}\n"
        "{%- endif -%}\n"
        "{%- endfor -%}\n"
        f"{{%- if add_generation_prompt -%}}{text(assistant)}{{%- endif -%}}\n"
    )
    return ChatTemplate(source, end_token)


CHAT_TEMPLATES: Mapping[str, ChatTemplate] = {
    "compact": _template(
        user=("<|user|>", ""),
        system=("<|system|>", ""),
        assistant="<|assistant|>",
        end_token="<|im_end|>",
    ),
    "chatml": _template(
        user=(r"<|im_start|>user\n", r"<|im_end|>\n"),
        system=(r"<|im_start|>system\n", r"<|im_end|>\n"),
        assistant=r"<|im_start|>assistant\n",
        end_token="<|im_end|>",
        behind=r"\n",
    ),
    "vicuna": _template(
        user=("USER: ", " "),
        system=("", " "),
        assistant="ASSISTANT: ",
        end_token="</s>",
        default_system="A chat between a curious user and an artificial intelligence assistant.",
    ),
    "llama3": _template(
        start="<|begin_of_text|>",
        user=(r"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        system=(r"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant=r"<|start_header_id|>assistant<|end_header_id|>\n\n",
        end_token="<|eot_id|>",
    ),
}
