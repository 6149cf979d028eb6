# SPDX-License-Identifier: Apache-2.0
from .registry import attention_names as attention_names
from .registry import build_attention as build_attention
