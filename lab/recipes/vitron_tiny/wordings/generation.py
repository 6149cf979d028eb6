# SPDX-License-Identifier: Apache-2.0
"""Wordings of requests for new images and videos, and of requests for two things at once."""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["ANIMATE", "CHAINS", "DRAW", "FILM"]

DRAW: Family = family(
    requests="""
    (draw|paint|sketch|generate|create|make) {things}
    (illustrate|design|render|imagine) {things}
    draw me {things}
    (make|create|generate|draw|paint|produce|render) (an image|a picture|a new image) of {things}
    (make|create|generate|draw|paint) (an image|a picture) with {things}
    (make|draw|paint|create|generate) me (an image|a picture) (of|with) {things}
    (show|give|get) me (an image|a picture|a drawing) (of|with) {things}
    (make|do|draw) a (drawing|painting|sketch|illustration) of {things}
    draw something with {things}
    (draw|make|create) an image that (shows|has) {things}
    (draw|make|create) an image showing {things}
    create artwork of {things}
    """,
    statements="""
    (an image|a picture|a drawing|a painting|a photo) of {things}
    I (want|need|would like) (an image|a picture|a drawing) (of|with) {things}
    I'd like (an image|a picture|a drawing) (of|with) {things}
    I want to see {things}
    I want to have (an image|a picture) of {things}
    new image: {things}
    I'd love (a picture|an image) of {things}
    can I (have|get|see) (a picture|an image|a drawing) of {things}
    {things} as (an image|a drawing|a painting)
    """,
    held_out="""
    I want a nice picture of {things}
    put together a picture with {things}
    could you come up with an image of {things}
    let me see a picture of {things}
    what would {things} look like as a picture
    paint a new image showing {things}
    depict {things}
    can I have an image showing {things}
    I'd love a drawing that shows {things}
    do me a sketch with {things}
    produce a new picture that shows {things}
    I need {things} as a picture
    my picture should show {things}
    """,
)
FILM: Family = family(
    requests="""
    (make|create|generate|produce|render|film|shoot) a (video|clip|short video) of {things}
    (make|create|generate|produce) a (video|clip) (with|showing) {things}
    (make|create|show|give|get) me a (video|clip|short video) (of|with) {things}
    film {things}
    (make|create|generate|draw) (an animation|a movie|a short movie|a gif) of {things}
    record a (video|clip) of {things}
    """,
    statements="""
    I (want|need|would like) a (video|clip|movie) (of|with) {things}
    I'd like a (video|clip) (of|with) {things}
    a (video|clip|short clip|gif) of {things}
    I want to see a (video|clip) of {things}
    new video: {things}
    can I (have|get|see) a (video|clip) of {things}
    {things} as a (video|clip)
    I'd love a (video|clip) of {things}
    """,
    held_out="""
    I want a little film of {things}
    put together a clip with {things}
    could you come up with a video of {things}
    let me see a clip of {things}
    can I have a video showing {things}
    I'd love a short video that shows {things}
    make this into a video: {things}
    do me a short clip with {things}
    shoot {things} as a video
    produce a moving picture of {things}
    what would a video of {things} look like
    """,
)
ANIMATE: Family = family(
    requests="""
    animate {thing} (moving|going) {way}
    animate {thing}: it (moves|goes) {way}
    animate {thing} so (it|that it) (moves|goes) {way}
    (animate it|animate this|animate the image): {thing} (moves|goes|should move) {way}
    animate the (image|picture|photo) so that {thing} (moves|goes) {way}
    (make|let|have) {thing} move {way}
    (make|let|have) {thing} (move|go) {way} in a (video|clip)
    (make|create|generate) a (video|clip|gif) where {thing} (moves|goes) {way}
    (make|create) a (video|clip|gif) (in which|of how|showing how) {thing} (moves|goes) {way}
    make a (video|clip|gif) of {thing} (moving|going) {way}
    (turn|make) this (image|photo) into a video where {thing} moves {way}
    (bring {thing} to life|make {thing} come alive): it (goes|moves) {way}
    show (me |)how {thing} (moves|goes) {way}
    set {thing} in motion, {way}
    let {thing} come to life and (go|move) {way}
    """,
    statements="""
    I want {thing} to (move|go) {way} in a (video|clip)
    I want (a video|a clip|an animation) where {thing} (moves|goes) {way}
    I'd like a (video|clip) where {thing} (moves|goes) {way}
    {thing} should (move|go) {way}, as a (video|clip)
    {thing} should (move|go) {way}: animate it
    {thing} moves {way}: make a (video|clip) of that
    in a (video|clip) {thing} (moves|goes) {way}
    """,
    held_out="""
    make {thing} go {way} in an animated clip
    {thing} should come alive and move {way}
    could you animate the picture with {thing} moving {way}
    I'd love to see {thing} in motion, going {way}
    turn it into a clip of {thing} going {way}
    get {thing} moving {way}
    create motion: {thing} goes {way}
    can {thing} travel {way} in a short video
    make it move, I mean {thing}, {way}
    give life to {thing} so it goes {way}
    produce an animation of {thing} going {way}
    what would it look like if {thing} moved {way}
    """,
)
_MAKE = "(draw|paint|sketch|generate|create|make a picture of|create an image of|draw a picture of)"
_THEN = "( and| and then|, then|, and after that|. then|, after that|, and|, next)"
_MARK = "(segment|mark|cut out|highlight|select|outline|mask)"
_GO = "(move|go)"
CHAINS: dict[str, Family] = {
    "draw_mark": family(
        requests=f"""
        {_MAKE} {{new}}{_THEN} {_MARK} {{thing}}
        (show me|give me) a picture of {{new}}{_THEN} {_MARK} {{thing}}
        first draw {{new}}, then {_MARK} {{thing}}
        """,
        statements=f"""
        I want a picture of {{new}}, then {_MARK} {{thing}}
        first {{new}} as an image, then a mask of {{thing}}
        """,
        held_out="""
        paint {new}, and once you are done cut out {thing}
        come up with {new}, afterwards outline {thing}
        draw {new} with {thing} segmented afterwards
        start with a picture of {new} and finish with a mask of {thing}
        after you have drawn {new}, segment {thing}
        make me {new} and give me the mask of {thing}
        create {new}; when that is done, highlight {thing}
        I'd like a drawing of {new} and the outline of {thing}
        produce a picture of {new}, next select {thing}
        generate {new} and isolate {thing} in the result
        """,
    ),
    "draw_edit": family(
        requests=f"""
        {_MAKE} {{new}}{_THEN} (make|paint|colour|color|turn|recolor) {{thing}} {{to}}
        {_MAKE} {{new}}{_THEN} change (the color of |the colour of |){{thing}} to {{to}}
        first draw {{new}}, then (make|paint|colour) {{thing}} {{to}}
        """,
        statements="""
        I want a picture of {new}, then (make|paint|turn) {thing} {to}
        """,
        held_out="""
        paint {new}, and once you are done change {thing} to {to}
        come up with {new}, afterwards dye {thing} {to}
        start with a picture of {new} and finish by making {thing} {to}
        after you have drawn {new}, paint {thing} {to}
        make me {new} but then turn {thing} {to}
        create {new}; when that is done, make {thing} {to}
        I'd like a drawing of {new} in which you then colour {thing} {to}
        produce a picture of {new}, next recolour {thing} to {to}
        generate {new} and give {thing} the colour {to} afterwards
        draw {new}, later on make {thing} {to}
        """,
    ),
    "draw_animate": family(
        requests=f"""
        {_MAKE} {{new}}{_THEN} (let|make|have) {{thing}} {_GO} {{to}}
        {_MAKE} {{new}}{_THEN} animate {{thing}}: it (moves|goes) {{to}}
        {_MAKE} {{new}}{_THEN} make a (clip|video) where {{thing}} (moves|goes) {{to}}
        first draw {{new}}, then animate {{thing}} moving {{to}}
        """,
        statements="""
        I want a picture of {new}, then (let|make) {thing} move {to}
        """,
        held_out="""
        paint {new}, and once you are done animate {thing}: it moves {to}
        come up with {new}, afterwards set {thing} in motion {to}
        start with a picture of {new} and finish with a video of {thing} moving {to}
        after you have drawn {new}, let {thing} move {to}
        make me {new} and bring {thing} to life, going {to}
        create {new}; when that is done, make {thing} go {to} in a clip
        I'd like a drawing of {new} and a video in which {thing} moves {to}
        produce a picture of {new}, next animate {thing} going {to}
        generate {new} and turn it into a clip where {thing} moves {to}
        draw {new}, later on have {thing} move {to}
        """,
    ),
    "mark_remove": family(
        requests=f"""
        {_MARK} {{thing}}{_THEN} (remove|delete|erase|get rid of) it
        {_MARK} {{thing}}{_THEN} take it (away|out)
        (find|show me) {{thing}}{_THEN} (remove|erase|delete) it
        first {_MARK} {{thing}}, then (remove|delete) it
        """,
        statements="""
        I want a mask of {thing}, then (remove|delete|erase) it
        """,
        held_out="""
        cut out {thing}, and once you are done erase it
        isolate {thing}, afterwards get rid of it
        start by marking {thing} and finish by deleting it
        after you have segmented {thing}, remove it
        give me the mask of {thing} and make it disappear
        outline {thing}; when that is done, wipe it out
        I'd like {thing} segmented and after that removed
        make a mask for {thing}, next delete the thing
        highlight {thing} before you remove it
        trace {thing}, later on take it out
        """,
    ),
    "edit_animate": family(
        requests=f"""
        (make|paint|colour|color|turn) {{thing}} {{to}}{_THEN} (let|make|have) it {_GO} {{way}}
        change {{thing}} to {{to}}{_THEN} animate it: it (moves|goes) {{way}}
        (make|paint|turn) {{thing}} {{to}}{_THEN} animate it moving {{way}}
        make {{thing}} {{to}}{_THEN} make a (video|clip) where it (moves|goes) {{way}}
        """,
        statements="""
        I want {thing} to be {to}, then (let|make) it move {way}
        """,
        held_out="""
        change {thing} to {to}, and once you are done animate it: it moves {way}
        recolour {thing} to {to}, afterwards set it in motion {way}
        start by painting {thing} {to} and finish with a video of it moving {way}
        after you have made {thing} {to}, let it move {way}
        dye {thing} {to} and bring it to life, going {way}
        make {thing} {to}; when that is done, have it go {way} in a clip
        I'd like {thing} in {to} and a video in which it moves {way}
        turn {thing} {to}, next animate it going {way}
        colour {thing} {to} and show me how it moves {way}
        give {thing} the colour {to}, later on let it move {way}
        """,
    ),
}
