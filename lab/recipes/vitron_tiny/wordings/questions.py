# SPDX-License-Identifier: Apache-2.0
"""Wordings of questions about one image; the slots are those of :func:`shapeworld.questions.slots`.

``subject`` has no article but for ``existence``, which has "a"; it is a
plural for ``count`` and ``comparison``. ``word`` is the attribute, the place or relation, "more" or "fewer".
"""

from __future__ import annotations

from collections.abc import Mapping

from shapeworld.questions import Kind

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["WORDINGS"]

_CLAIM = family(
    requests="""
    (tell me|say|check) (if|whether) the {subject} is {word}
    """,
    questions="""
    is the {subject} {word}
    is the {subject} {word} (here|in this image|in the picture)
    is the {subject} really {word}
    (do|can) you see the {subject} {word}
    (is it true|is it right|is it correct) that the {subject} is {word}
    (would you say|do you think|can you see) (that |)the {subject} is {word}
    the {subject} is {word}, (right|correct|isn't it|yes or no)
    am I right that the {subject} is {word}
    isn't the {subject} {word}
    is the {subject} (located|placed|to be found) {word}
    does the {subject} (lie|sit) {word}
    yes or no: is the {subject} {word}
    """,
    statements="""
    I (think|believe) the {subject} is {word}, (right|correct)
    I want to know if the {subject} is {word}
    I wonder (if|whether) the {subject} is {word}
    """,
    held_out="""
    in this picture is the {subject} {word}
    can you confirm that the {subject} is {word}
    is {word} where the {subject} is
    do I see it right that the {subject} is {word}
    would it be true to say the {subject} is {word}
    the {subject}, is it {word}
    does the picture show the {subject} {word}
    could it be that the {subject} is {word}
    the {subject} is {word}, no
    true or false: the {subject} is {word}
    have a look whether the {subject} is {word}
    """,
)
WORDINGS: Mapping[Kind, Family] = {
    "count": family(
        requests="""
        count (the|all|all the) {subject}
        tell me (how many {subject} there are|the number of {subject}|how many {subject} you see)
        (say|give me) (how many {subject} there are|the number of {subject})
        """,
        questions="""
        how many {subject} (are there|are here|do you see|can you see|can you count|do you count)
        how many {subject} are (in this image|in the image|in this photo|in the picture|shown|visible)
        how many {subject} are there in (this|the) (image|photo|picture)
        how many {subject} (does this image have|does the picture show|can be seen)
        (what is|what's) the (number|count) of {subject}
        how many {subject}
        """,
        statements="""
        number of {subject}
        I want to know how many {subject} there are
        I see {subject}: how many are there
        {subject}: how many
        count of {subject}
        """,
        held_out="""
        there are how many {subject}
        in this picture how many {subject} are there
        what is the total of {subject}
        what would be the count of {subject} here
        {subject}, how many of them do you see
        of {subject} how many do you see
        how many of the {subject} do you see
        do a count of {subject}
        what number of {subject} is in the photo
        how many {subject} have you got there
        could you count up the {subject}
        """,
    ),
    "existence": family(
        requests="""
        (tell me|say|check) (if|whether) there is {subject}
        (tell me|say) (if|whether) you see {subject}
        """,
        questions="""
        is there {subject}
        is there {subject} (here|in this image|in the image|in this photo|in the picture|anywhere)
        (do|can) you see {subject}
        (do|can) you see {subject} (here|in this image|anywhere|in the photo)
        does (this|the) (image|photo|picture) (show|have|contain) {subject}
        is {subject} (here|in this image|in the picture|shown|visible|present)
        do you find {subject}
        (is it true|would you say|do you think) that there is {subject}
        there is {subject}, right
        isn't there {subject}
        yes or no: is there {subject}
        """,
        statements="""
        I (wonder|want to know) if there is {subject}
        """,
        held_out="""
        in this picture is there {subject}
        is {subject} anywhere to be seen
        is {subject} there
        is {subject} to be seen
        does {subject} appear in the photo
        are you able to see {subject}
        could there be {subject} in the image
        has this image got {subject}
        {subject}, is there one
        did they include {subject} in the picture
        can {subject} be seen
        """,
    ),
    "colour": family(
        requests="""
        tell me (the colour|the color|what colour|what color) (of the {subject}|the {subject} is)
        (name|give me) the (colour|color) of the {subject}
        say what (colour|color) the {subject} is
        """,
        questions="""
        what (colour|color) is the {subject}
        (what is|what's|whats) the (colour|color) of the {subject}
        which (colour|color) (is|has) the {subject}
        what (colour|color) does the {subject} have
        what (colour|color) is the {subject} (here|in this image|in the picture)
        the {subject}: what (colour|color) is it
        in (what|which) (colour|color) is the {subject}
        (do you know|can you see) what (colour|color) the {subject} is
        how is the {subject} (coloured|colored|painted)
        """,
        statements="""
        (colour|color) of the {subject}
        I want to know (the colour|the color) of the {subject}
        """,
        held_out="""
        the {subject} is what colour
        which colour would you say the {subject} is
        what hue is the {subject}
        what do you call the color of the {subject}
        what would you call the colour of the {subject}
        which shade does the {subject} have
        the {subject} has which color
        I can't tell the colour of the {subject}, can you
        what color was the {subject} painted in
        what is the {subject} coloured in
        is the {subject} red, blue or what
        """,
    ),
    "shape": family(
        requests="""
        tell me (the shape of the {subject}|what shape the {subject} is|what the {subject} is)
        (name|give me) the shape of the {subject}
        say what (shape|form) the {subject} (is|has)
        """,
        questions="""
        what shape is the {subject}
        (what is|what's|whats) the (shape|form) of the {subject}
        which (shape|form) (is|has) the {subject}
        what (shape|form) does the {subject} have
        what (kind|sort|type) of (shape|form) is the {subject}
        what shape is the {subject} (here|in this image|in the picture)
        the {subject}: what shape is it
        (what is|what's) the {subject}
        (do you know|can you see) what shape the {subject} is
        how is the {subject} shaped
        """,
        statements="""
        (shape|form) of the {subject}
        I want to know the (shape|form) of the {subject}
        """,
        held_out="""
        the {subject} is what shape
        which shape would you say the {subject} is
        what outline does the {subject} have
        what do you call the form of the {subject}
        what would you call the shape of the {subject}
        what geometric shape is the {subject}
        the {subject} has which form
        I can't tell the shape of the {subject}, can you
        what does the {subject} look like: which shape
        in what shape is the {subject}
        is the {subject} a circle, a square or what
        """,
    ),
    "material": family(
        requests="""
        tell me (the pattern|the material|the texture) of the {subject}
        tell me what (pattern|material|texture) the {subject} has
        (name|give me) the (pattern|material|texture) of the {subject}
        """,
        questions="""
        what (pattern|material|texture) is the {subject}
        (what is|what's) the (pattern|material|texture) of the {subject}
        (which|what) (pattern|texture|material) does the {subject} have
        what kind of (pattern|texture|material) (is the {subject}|does the {subject} have)
        the {subject}: what pattern is it
        is the {subject} (solid, striped or dotted|striped, dotted or solid|striped or dotted)
        (what|which) (pattern|material) has the {subject}
        how is the {subject} patterned
        """,
        statements="""
        (pattern|material|texture) of the {subject}
        I want to know the (pattern|material|texture) of the {subject}
        """,
        held_out="""
        does the {subject} have stripes or dots
        is the {subject} dotted, solid or striped
        what is the surface of the {subject} like
        what do you call the pattern of the {subject}
        what would you call the pattern of the {subject}
        which kind of pattern has the {subject}
        I can't tell the pattern of the {subject}, can you
        the {subject} has which pattern
        what design is on the {subject}
        does the {subject} have a pattern, and which
        """,
    ),
    "position": _CLAIM,
    "relation": _CLAIM,
    "comparison": family(
        requests="""
        (tell me|say|check) (if|whether) there are {word} {subject} than {other}
        """,
        questions="""
        are there {word} {subject} than {other}
        are there {word} {subject} than {other} (here|in this image|in the picture|in this photo)
        are there really {word} {subject} than {other}
        (do|can) you see {word} {subject} than {other}
        (is it true|is it right|is it correct) that there are {word} {subject} than {other}
        (would you say|do you think) (that |)there are {word} {subject} than {other}
        there are {word} {subject} than {other}, (right|correct|yes or no)
        {word} {subject} than {other}
        does (this|the) (image|picture|photo) (have|show|contain) {word} {subject} than {other}
        yes or no: are there {word} {subject} than {other}
        aren't there {word} {subject} than {other}
        """,
        statements="""
        I (wonder|want to know) if there are {word} {subject} than {other}
        I think there are {word} {subject} than {other}, (right|correct)
        """,
        held_out="""
        in this picture are there {word} {subject} than {other}
        could you check if {word} {subject} than {other} are here
        comparing them, are there {word} {subject} than {other}
        true or false: there are {word} {subject} than {other}
        have we got {word} {subject} than {other}
        am I right to say there are {word} {subject} than {other}
        do {word} {subject} than {other} appear here
        can you confirm {word} {subject} than {other}
        is the image showing {word} {subject} than {other}
        would it be true that there are {word} {subject} than {other}
        """,
    ),
}
