# SPDX-License-Identifier: Apache-2.0
"""The node pack of diffeat: copy or link this folder into ``custom_nodes`` of ComfyUI."""

from diffeat.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
