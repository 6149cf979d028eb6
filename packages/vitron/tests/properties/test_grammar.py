# SPDX-License-Identifier: Apache-2.0
import random

from vitron.protocol import Grammar, StreamParser, parse

# what is likely to be taken for something else
BITS = [
    *("<module>", "</module>", "<instruction>", "</instruction>", "<region>", "</region>", "< / Module >"),
    *("&lt;", "&amp;", "&", "<", ">", ":", "segment:", "seed: 3", "input: img_1", "\n", " ", "[1, 2, 3, 4]"),
    *("B", "image_editing", "mask_1", "é", "\U0001f600", "\u2028", "\x1c", "İ", "</s>", "<sig_p0>", "| 1, 2"),
]


def walk(rng, steps):
    """A reply as an untrained model under the grammar would write it."""
    grammar, out = Grammar(), []
    while steps > 0 or not grammar.can_end():
        steps -= 1
        allowed = grammar.allowed_next()
        if allowed.only is not None:
            piece = rng.choice(sorted(allowed.only))
        elif not grammar.in_call:
            piece = rng.choice(BITS)
        elif steps < 0 and allowed.everything:
            piece = "<"
        else:
            piece = rng.choice([*"abx :\n&é<", "&lt;", "seed: 3", "segment:"])
        if grammar.accepts(piece):
            grammar.advance(piece)
            out.append(piece)
    return "".join(out)


def test_every_reply_under_the_grammar_is_read_without_an_issue():
    rng, found = random.Random(3), 0
    for _ in range(150):
        reply = walk(rng, 60)
        turn = parse(reply)
        assert turn.issues == (), reply
        found += len(turn.invocations)
    assert found > 100


def test_the_grammar_leaves_free_text_alone():
    rng = random.Random(4)
    for _ in range(200):
        grammar, parser = Grammar(), StreamParser()
        for _ in range(25):
            piece = rng.choice(BITS)
            if not grammar.accepts(piece):
                continue
            grammar.advance(piece)
            parser.feed(piece)
            if not parser.in_call:
                assert grammar.allowed_next().everything
