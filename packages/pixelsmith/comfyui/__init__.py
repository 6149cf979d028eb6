# SPDX-License-Identifier: Apache-2.0
"""The node pack of pixelsmith: copy or link this folder into ``custom_nodes`` of ComfyUI."""

from pixelsmith.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
