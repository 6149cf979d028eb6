# SPDX-License-Identifier: Apache-2.0
"""Wordings of messages that refer to what was said, shown or marked before, by key of :data:`FOLLOW_UPS`.

Slots: ``to`` and ``way`` as in editing and animation, ``thing`` with "the".
"""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["FOLLOW_UPS"]

_IT = "(it|that|this one|that one|that thing|the object)"
_THEM = "(them|them all|all of them|these|those|all of these)"
FOLLOW_UPS: dict[str, Family] = {
    "remove_it": family(
        requests=f"""
        remove (it|that|that one|this one|that thing|the object)
        (delete|erase|get rid of|take out|clear|wipe out|eliminate) {_IT}
        take it (away|out|off|out of the image)
        make it (disappear|vanish|go away)
        (remove|delete|erase) it (again|from the image|from the picture|as well|too|completely)
        (remove|delete|erase) what you (found|marked|segmented|just found)
        have it (deleted|erased|taken out)
        """,
        statements="""
        can it be (deleted|removed|erased)
        I'd like it (gone|deleted|to disappear)
        it (is in the way|is not needed), (remove|delete) it
        it (has to|should|must|can) go
        I don't (want|need) it (there|anymore)
        I want it (gone|removed|deleted)
        away with it
        """,
        held_out="""
        do away with it
        I'd like it taken out
        could that be deleted please
        wipe that off the picture
        I don't like it, get rid of it
        would you kindly erase it
        please have it removed from the photo
        discard that one
        have that taken out
        I'd rather not see it there
        we don't need it here
        """,
    ),
    "remove_them": family(
        requests=f"""
        (remove|delete|erase|get rid of|take out|clear|wipe out|eliminate) {_THEM}
        take them (away|out|off|out of the image)
        make them (disappear|vanish|go away)
        (remove|delete|erase) them (from the image|from the picture|too|completely)
        """,
        statements="""
        they (all have to|all should|should all|must all|can all) go
        I don't (want|need) them (there|anymore)
        I want them (gone|removed|deleted)
        """,
        held_out="""
        do away with them
        I'd like them taken out
        could those be deleted please
        wipe them off the picture
        I don't like them, get rid of them
        we don't need them here
        please have them removed from the photo
        I'd rather not see them there
        have those taken out
        discard all of them
        """,
    ),
    "recolour_it": family(
        requests="""
        make (it|that|that one|this one) {to}
        (paint|colour|color|turn|recolour|recolor|dye|tint|repaint) (it|that|that one) {to}
        change (its|the) (colour|color) to {to}
        (change|recolour|recolor|switch) it to {to}
        (paint|colour|color) it in {to}
        give it (a {to} colour|a {to} color|the colour {to})
        set the (colour|color) to {to}
        let it be {to}
        """,
        statements="""
        I want (it|that one) (to be|in|painted) {to}
        I'd like it (to be|in) {to}
        it (should|must|has to) be {to}
        """,
        held_out="""
        its colour should be {to}
        could it be {to} instead
        have it coloured {to}
        I'd prefer it in {to}
        it would look better in {to}
        make it look {to}
        {to} would be nicer for it, change it
        what about {to} for that one
        shade that one {to}
        can you give it the color {to}
        convert its color to {to}
        """,
    ),
    "replace_it": family(
        requests="""
        (replace|swap|substitute|exchange) (it|that|that one) (with|for) {to}
        (turn|change|transform|convert|make) (it|that|that one) into {to}
        replace (it|that) by {to}
        put {to} (in its place|there instead|where it was)
        (use|show|draw) {to} instead
        let it become {to}
        remove it and put {to} there
        """,
        statements="""
        I want {to} (instead|in its place|there instead|instead of it)
        I'd like {to} instead
        it should (become|be replaced with|be replaced by|turn into) {to}
        {to} instead of it
        """,
        held_out="""
        substitute {to} for it
        make it become {to}
        I would rather have {to} there
        could we have {to} in its place
        take it out and draw {to} there
        I'd prefer {to} over it
        have it replaced by {to}
        it should change into {to}
        I would rather see {to}
        can it be replaced with {to}
        """,
    ),
    "move_it": family(
        requests="""
        (move|shift|push|drag|slide|pull|nudge|bring|send) (it|that|that one) {to}
        (move|shift|push|slide|nudge) it (a bit|a little|slightly|further|some more) {to}
        (take|carry) it {to}
        put it (further|more) {to}
        place it further {to}
        """,
        statements="""
        I want it (further|more|moved) {to}
        it should (be|sit) (further|more) {to}
        I'd like it (further|moved) {to}
        it (belongs|must be|has to be) further {to}
        """,
        held_out="""
        take it a bit further {to}
        could it be a little further {to}
        have it shifted {to}
        give it a push {to}
        it would be better further {to}
        shove that {to}
        a little more {to} with it
        can it be moved {to}
        would you set it further {to}
        I need it a little further {to}
        """,
    ),
    "animate_it": family(
        requests="""
        (let|make|have) (it|that|that one|this one) move {way}
        (let|make|have) (it|that one) (move|go) {way} in a (video|clip)
        animate (it|that|that one) (moving|going) {way}
        animate it: it (moves|goes) {way}
        animate it so that it (moves|goes) {way}
        (make|create|generate) a (video|clip|gif) where it (moves|goes) {way}
        (make|create) a (video|clip) of it (moving|going) {way}
        set it in motion, {way}
        bring it to life: it goes {way}
        """,
        statements="""
        I want it to move {way} in a (video|clip)
        I want a (video|clip) where it (moves|goes) {way}
        """,
        held_out="""
        make it go {way} in an animated clip
        it should come alive and move {way}
        I'd love to see it in motion, going {way}
        get it moving {way}
        can it travel {way} in a short video
        give it life so it goes {way}
        produce an animation of it going {way}
        what would it look like if it moved {way}
        turn this into a clip of it going {way}
        could you animate that one, {way} please
        """,
    ),
    "segment_it": family(
        requests=f"""
        (segment|mask|outline|highlight|select|isolate|mark|cut out|extract|trace) {_IT}
        (cut|pick) it out
        show me (its outline|its mask|its pixels|where it is)
        (make|create|generate) a mask (of|for) it
        give me (its mask|its outline|a mask of it|the mask of it|its pixels)
        draw its outline
        """,
        statements="""
        I (want|need) (a mask of it|its mask|it segmented|it marked|its outline)
        """,
        held_out="""
        could you produce a mask for that
        do a segmentation of it
        I'd like to see it outlined
        mark it out in the image
        can I get its mask
        would you mask that out
        delineate it
        put a mask over it
        have it cut out
        let me see its pixels
        """,
    ),
    "track_it": family(
        requests="""
        (track|follow|watch) (it|that|that one|this one|that thing|the object)
        (track|follow|trace) it (in all frames|through the video|in every frame|over time|in the clip)
        (mark|segment|outline|mask) it in (all frames|every frame|each frame|the whole video)
        keep (track of it|an eye on it|following it|tracking it)
        (stay on|lock onto) it
        """,
        statements="""
        I want it (tracked|followed)
        don't lose it
        I want to see where it goes
        """,
        held_out="""
        do not lose sight of it
        pursue it through the clip
        can you stay with it for the whole clip
        run tracking on that
        where it goes, mark it
        keep it marked while it moves
        I need it segmented from the first to the last frame
        watch that over the whole video
        let me see it being followed
        mark it from beginning to end
        """,
    ),
    "what_is_it": family(
        requests="""
        tell me what (it|that|that thing) is
        (name|describe|identify) (it|that|that thing)
        say what it is
        """,
        questions="""
        what is (it|that|that thing|that object)
        what's (it|that|that thing)
        what (was|is) it (exactly|again|called|then)
        what (did you find|did you mark|did you segment|have you marked|do you call it)
        which (thing|object) is (it|that)
        what kind of (thing|object) is (it|that)
        what is the thing you (marked|found|segmented)
        can you (name|describe|identify) (it|that)
        and what is it
        """,
        statements="""
        I want to know what it is
        """,
        held_out="""
        what thing might that be
        what would you call it
        any idea what that is
        do you recognise it
        explain what you have found
        what is it that you marked
        give me a name for it
        how would you describe that one
        what exactly have you selected
        which one did you mark
        """,
    ),
    "colour_of_it": family(
        requests="""
        (tell me|say|name) its (colour|color)
        tell me (what|which) (colour|color) it (is|has)
        """,
        questions="""
        what (colour|color) is (it|that|that one|this one|that thing)
        (what is|what's) its (colour|color)
        (what|which) (colour|color) does (it|that one) have
        which (colour|color) is (it|that)
        and (its colour|its color|what colour is it|what color is it)
        in what (colour|color) is it
        how is it (coloured|colored)
        and what (colour|color) is that
        (do you know|can you tell|can you see) (what|which) (colour|color) it is
        """,
        statements="""
        (the|its) (colour|color) (please|of it)
        """,
        held_out="""
        it is of what colour
        what hue does it have
        what do you call its color
        which shade is it
        what would you call its colour
        it has which colour
        tell me about its color
        I can't tell its colour, can you
        what is it coloured in
        what is it painted in
        """,
    ),
    "shape_of_it": family(
        requests="""
        (tell me|say|name) its (shape|form)
        tell me (what|which) (shape|form) it (is|has)
        """,
        questions="""
        what (shape|form) is (it|that|that one|this one|that thing)
        (what is|what's) its (shape|form)
        (what|which) (shape|form) does (it|that one) have
        which shape is (it|that)
        and (its shape|what shape is it|which shape)
        what (kind|sort|type) of shape (is it|does it have)
        how is it shaped
        and what shape is that
        (do you know|can you tell|can you see) (what|which) shape it (is|has)
        """,
        statements="""
        (the|its) (shape|form) (please|of it)
        """,
        held_out="""
        it is of what shape
        what geometric shape is it
        what do you call its form
        what outline does it have
        what would you call its shape
        it has which form
        in what shape is it
        I can't tell its shape, can you
        tell me about its shape
        is it a circle, a square or what
        """,
    ),
    "material_of_it": family(
        requests="""
        (tell me|say|name) its (pattern|material|texture)
        tell me (what|which) (pattern|material|texture) it has
        """,
        questions="""
        what (pattern|material|texture) is (it|that|that one)
        (what is|what's) its (pattern|material|texture)
        (what|which) (pattern|material|texture) does (it|that one) have
        and (its pattern|its material|what pattern is it)
        what kind of (pattern|texture|material) is it
        is it (solid, striped or dotted|striped, dotted or solid|striped or dotted)
        how is it patterned
        (do you know|can you tell|can you see) (what|which) pattern it has
        """,
        statements="""
        (the|its) (pattern|material|texture) (please|of it)
        """,
        held_out="""
        it is of what material
        what design is on it
        what do you call its pattern
        what is its surface like
        what would you call its pattern
        it has which pattern
        with what pattern is it filled
        does it have stripes, dots or neither
        I can't tell its pattern, can you
        tell me about its pattern
        """,
    ),
    "other": family(
        requests="""
        do (the other one|the other one too|the other one as well|that for the other one)
        do the same (for|to|with) the other (one|thing|object)
        (take|use|try|pick) the other one
        repeat (that|it) (for|with) the other one
        """,
        questions="""
        what about the other (one|thing|object)
        and what about the other one
        how about the other (one|thing)
        """,
        fixed="""
        and the other (one|thing|object)
        and (also|then|now) the other one
        and the second one
        """,
        statements="""
        the other (one|thing|object)
        the other one (too|as well|also|next|now)
        the same (for|with) the other (one|thing)
        same (for|with) the other (one|thing)
        also the other (one|thing)
        the second one (too|as well|also)
        """,
        held_out="""
        likewise for the other one
        don't forget the other one
        I'd like the other one done too
        then the other thing as well
        there is one more, do that one as well
        can you do the second one as well
        the other one deserves the same
        please continue with the other one
        now the same, but the other one
        can the other one get the same
        """,
    ),
    "segment_other": family(
        requests="""
        (segment|mask|outline|highlight|select|mark|cut out|extract) the other one
        (segment|mask|outline|highlight|select|mark|cut out|extract) the other one (too|as well|also)
        (segment|mask|mark|highlight) the other (thing|object)
        (segment|mask|mark|highlight) the second one
        show me the other one
        give me (a mask of|the mask of) the other one
        """,
        statements="""
        I (want|need) a mask of the other one
        """,
        held_out="""
        could you outline that other one
        I'd like to see the other one segmented
        can I get a mask for the other one
        delineate the other one
        put a mask over the other one
        mark out the other one
        I'd like the other one outlined
        do a segmentation of the other one
        have the other one cut out
        let me see the pixels of the other one
        """,
    ),
    "same_for": family(
        requests="""
        do the same (for|to|with) {thing}
        do (that|it) (for|to|with) {thing} (too|as well|also)
        (repeat|repeat that|repeat it) (for|with|on) {thing}
        do {thing} (too|as well|next)
        apply the same to {thing}
        """,
        questions="""
        (what|how) about {thing}
        and what about {thing}
        """,
        statements="""
        (the same|same) (for|with|to) {thing}
        the same thing (for|with) {thing}
        {thing} (too|as well|also|next)
        """,
        fixed="""
        (and|and also|and now|also|and then) {thing}
        and {thing} (too|as well)
        """,
        held_out="""
        likewise for {thing}
        don't forget {thing}
        now the same, but {thing}
        {thing} deserves the same
        please continue with {thing}
        once more, for {thing}
        I'd like {thing} done too
        do it again on {thing}
        can {thing} get the same
        ditto for {thing}
        """,
    ),
    "correction": family(
        requests="""
        (take|use|pick) {thing} instead
        do it (for|to|with) {thing} instead
        """,
        fixed="""
        (no|sorry|oops|wait|hmm|no no|nope), I meant {thing}
        I (meant|wanted) {thing}
        (no|sorry|oops), (not that one|wrong one), {thing}
        not (that|that one|this one|it), {thing}
        (no|sorry|wait|oops), {thing}
        actually (I meant {thing}|{thing}|{thing} instead)
        (that's|that is|that was) (wrong|the wrong one|not it), I meant {thing}
        wrong one, (I meant {thing}|{thing})
        {thing} (instead|I meant|please, not that one)
        I was (talking about|asking for) {thing}
        no, I (wanted|want|was thinking of) {thing}
        """,
        held_out="""
        you took the wrong one, it should have been {thing}
        that isn't what I had in mind, {thing} is
        let me correct myself: {thing}
        I misspoke, {thing}
        my mistake, I mean {thing}
        you misunderstood, I was after {thing}
        rather {thing}
        no, it was {thing} that I meant
        better take {thing}
        that's another one, do {thing}
        scratch that, {thing}
        """,
    ),
}
