# SPDX-License-Identifier: Apache-2.0
"""The text side: class names, auxiliary texts, prompts and their embeddings."""

import lazy_loader as lazy

# class lists and files need no torch
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
