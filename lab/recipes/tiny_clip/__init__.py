# SPDX-License-Identifier: Apache-2.0
"""How tiny-clip is made: a pool of scenes, a word tokenizer, training in two phases, shipping, judging."""
