# SPDX-License-Identifier: Apache-2.0
"""Wordings of requests about one video: questions, frames, tracking and new colours.

Slots: ``thing`` with "the"; ``verb`` is "appear" or "disappear", ``end`` is "first" or "last", ``front`` and
``back`` are colours.
"""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["CHANGES", "COUNT", "EVENT", "MOVES", "RECOLOUR", "SPAN", "TRACK", "WAY"]

WAY: Family = family(
    requests="""
    (tell me|say) (which way|in which direction|where) {thing} (moves|goes|is going|is moving)
    (name|give me|tell me) the direction (of {thing}|in which {thing} moves)
    """,
    questions="""
    (which way|where) does {thing} (go|move)
    (which way|where) is {thing} (going|moving|heading)
    in (which|what) direction does {thing} (move|go)
    in (which|what) direction is {thing} (moving|going)
    what direction (is {thing} moving|does {thing} move in|is {thing} going)
    what is the direction of {thing}
    what's the direction of {thing}
    which direction does {thing} (move|go|take)
    what way does {thing} (move|go)
    where does {thing} (head|move to|go to)
    does {thing} move left, right, up or down
    """,
    statements="""
    I want to know (where|which way) {thing} (moves|goes)
    direction of {thing}
    """,
    held_out="""
    to which side is {thing} going
    {thing} moves which way
    what is the heading of {thing}
    can you see where {thing} is headed
    {thing} is going in what direction
    to which side does {thing} move
    left, right, up or down: how does {thing} move
    in what direction does {thing} travel
    which way is {thing} heading to
    tell me the way {thing} is going
    """,
    place="video",
)
MOVES: Family = family(
    requests="""
    (tell me|say|check) (if|whether) {thing} (moves|is moving|moves at all|is in motion)
    """,
    questions="""
    does {thing} move
    does {thing} move (at all|around|anywhere)
    is {thing} (moving|going anywhere|moving at all|moving around)
    (do|can) you see {thing} (move|moving)
    did {thing} move
    is there any (motion|movement) of {thing}
    is {thing} (still|standing still) or moving
    does {thing} (change|leave) its (place|position)
    is it true that {thing} (moves|is moving)
    would you say {thing} (moves|is moving)
    {thing} (moves|is moving), right
    is {thing} (a moving|the moving) thing
    """,
    statements="""
    I want to know if {thing} (moves|is moving)
    I wonder whether {thing} (moves|is moving)
    """,
    held_out="""
    is {thing} in motion
    does {thing} go anywhere
    is {thing} on the move
    is {thing} in another place later
    can you tell if {thing} moves
    does {thing} travel at all
    did {thing} shift over time
    does {thing} stay in its place or move
    do you notice {thing} moving
    am I right that {thing} moves
    """,
    place="video",
)
CHANGES: Family = family(
    requests="""
    (tell me|say|check) (if|whether) (anything|something|any object) {verb}s
    """,
    questions="""
    does (anything|something|any object|any thing|a thing|an object|any shape) {verb}
    does (anything|something|any object|a thing) {verb} in (this|the) (video|clip)
    (do|can) you see (something|anything|an object|a shape) {verb}
    will (anything|something) {verb}
    did (anything|something) {verb}
    (is there anything|is there something) that {verb}s
    does (anything|something) {verb} (later|over time|at some point)
    """,
    statements="""
    I want to know if (anything|something) {verb}s
    something {verb}s, right
    """,
    held_out="""
    is there a thing that {verb}s
    can you spot anything that {verb}s
    do any objects {verb}
    does some object {verb} along the way
    do things {verb} here
    is it true that something {verb}s
    have you noticed anything {verb}
    would you say that something {verb}s
    does one of the objects {verb}
    do any of the shapes {verb}
    """,
)
COUNT: Family = family(
    requests="""
    count the (things|objects|shapes) in the {end} frame
    (tell me|say) how many (things|objects|shapes) (are in|there are in|you see in) the {end} frame
    (give me|tell me) the number of (things|objects) in the {end} frame
    """,
    questions="""
    how many (things|objects|shapes|items) are in the {end} frame
    how many (things|objects|shapes) are there in the {end} frame
    how many (things|objects|shapes) (do|can) you see in the {end} frame
    how many (things|objects) does the {end} frame (show|have|contain)
    what is the number of (things|objects) in the {end} frame
    in the {end} frame, how many (things|objects) are there
    how many are in the {end} frame
    """,
    statements="""
    number of (things|objects) in the {end} frame
    I want to know how many (things|objects) are in the {end} frame
    """,
    held_out="""
    there are how many things in the {end} frame
    the {end} frame has how many objects
    in the {end} frame I see how many shapes
    what's the object count of the {end} frame
    can you count what is in the {end} frame
    looking at the {end} frame, how many things are present
    how many shapes are visible in the {end} frame
    how much stuff is in the {end} frame
    how many different objects are on the {end} frame
    of things in the {end} frame, how many are there
    """,
)
SPAN: Family = family(
    requests="""
    (tell me|say) (when|in which frames) {thing} is (there|visible|seen|shown)
    (give me|list|name) the frames (with|of|that show|that contain) {thing}
    (tell me|say) from when to when {thing} is there
    """,
    questions="""
    when is {thing} (there|visible|in the video|on screen|shown)
    (in which|in what|during which) frames is {thing} (visible|shown|seen)
    in which frames is {thing}
    in which frames do you see {thing}
    when (can|do) you see {thing}
    when (can|do) I see {thing}
    (which|what) frames (show|contain|have) {thing}
    from when to when is {thing} (there|visible)
    how long is {thing} (there|visible)
    from which frame to which is {thing} there
    """,
    statements="""
    frames (with|of) {thing}
    I want (to know when {thing} is there|the frames with {thing})
    """,
    held_out="""
    during which frames is {thing} there
    in which frames can you see {thing}
    over what span of frames does {thing} show up
    at what times is {thing} in view
    {thing} is there from when until when
    for which part of the video is {thing} present
    between which frames is {thing} present
    what is the time span of {thing}
    where in the video is {thing} on screen
    on which frames can {thing} be found
    """,
)
EVENT: Family = family(
    requests="""
    (tell me|say) (when|in which frame|at which frame) {thing} {verb}s
    (find|give me|name|tell me) the (frame|moment) (where|when|in which) {thing} {verb}s
    """,
    questions="""
    when does {thing} {verb}
    (in|at) (which|what) frame does {thing} {verb}
    (which|what) frame does {thing} {verb} in
    when did {thing} {verb}
    when will {thing} {verb}
    (which|what) is the frame (where|in which) {thing} {verb}s
    at what (time|point|moment) does {thing} {verb}
    do you know when {thing} {verb}s
    """,
    statements="""
    I want to know (when|in which frame) {thing} {verb}s
    the (frame|moment) when {thing} {verb}s
    """,
    held_out="""
    {thing} {verb}s in which frame
    at which moment do you see {thing} {verb}
    look up the frame in which {thing} {verb}s
    what frame number is it when {thing} {verb}s
    by which frame does {thing} {verb}
    {thing} {verb}s when
    on which frame do we see {thing} {verb}
    in which of the frames does {thing} {verb}
    give the frame number at which {thing} {verb}s
    give me the number of the frame where {thing} {verb}s
    """,
    place="video",
)
_ALL = "(in all frames|in every frame|in each frame|through the video|throughout the video|over time)"
TRACK: Family = family(
    requests=f"""
    (track|follow|watch) {{thing}}
    (track|follow) {{thing}} {_ALL}
    (track|follow) {{thing}} in the whole (video|clip)
    (mark|segment|outline|highlight|mask) {{thing}} {_ALL}
    (find|show me|select) {{thing}} in (all frames|every frame|the whole video)
    keep (track of|an eye on|following|tracking) {{thing}}
    (stay on|stay with|lock on to|lock onto) {{thing}}
    segment {{thing}} in (this|the) (video|clip)
    (mark|outline|highlight) {{thing}} in the whole (video|clip)
    trace the (path|motion) of {{thing}}
    (make|create) a mask of {{thing}} for (all frames|every frame)
    """,
    statements="""
    I want (to see |){thing} (tracked|followed)
    I (need|want) a track of {thing}
    I (need|want) a mask of {thing} (in every frame|for each frame)
    don't lose {thing}
    """,
    held_out="""
    trace {thing} from start to end
    do not lose sight of {thing}
    pursue {thing} through the clip
    can you stay with {thing} for the whole clip
    I need {thing} segmented from the first to the last frame
    run tracking on {thing}
    where {thing} goes, mark it
    keep {thing} marked while it moves
    watch {thing} over the whole video
    get me the masks of {thing} for all the frames
    let me see {thing} being followed
    mark {thing} from beginning to end
    """,
)
RECOLOUR: Family = family(
    requests="""
    (make|paint|colour|color|turn) the (things|objects|shapes) {front} and the background {back}
    (make|paint|colour|color|turn) the background {back} and the (things|objects|shapes) {front}
    (make|paint|turn) (all|all the) (things|objects) {front} and the background {back}
    change the (things|objects|shapes) to {front} and the background to {back}
    change the background to {back} and the (things|objects) to {front}
    (recolor|recolour) the (things|objects) (to|in) {front} and the background (to|in) {back}
    (give me|show me) {front} (things|objects) on (a {back} background|{back})
    (let|have) the (things|objects) be {front} and the background {back}
    make everything {front} on a {back} background
    make the foreground {front} and the background {back}
    put {front} (things|objects) on a {back} background
    use {front} for the (things|objects) and {back} for the background
    """,
    statements="""
    I (want|need|would like) {front} (things|objects|shapes) on a {back} background
    {front} (things|objects), {back} background
    background {back}, (things|objects) {front}
    the (things|objects) {front}, the background {back}
    I want the (things|objects) {front} and the background {back}
    on a {back} background I want {front} (things|objects)
    the (things|objects) should be {front} and the background {back}
    """,
    held_out="""
    {back} background and {front} things
    dye the things {front} and the backdrop {back}
    can the objects be {front} while the background is {back}
    set the foreground colour to {front} and the background colour to {back}
    {front} in front, {back} behind
    what is in front becomes {front}, what is behind becomes {back}
    could we have {front} shapes in front of {back}
    give the objects a {front} colour and the background a {back} one
    switch to {front} objects over a {back} background
    I'd like everything in front {front} and everything behind {back}
    """,
)
