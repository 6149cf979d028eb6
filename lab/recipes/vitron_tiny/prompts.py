# SPDX-License-Identifier: Apache-2.0
"""Prompt templates of user messages: of each family those of training, and those that are held out.

No held-out template is one of training. Slots stand in braces.
"""

from __future__ import annotations

__all__ = [
    "ANIMATE",
    "CAPTION",
    "CHAINS",
    "CHANGES",
    "CHAT",
    "COUNT",
    "DRAW",
    "EDITS",
    "EVENT",
    "FILM",
    "GROUND",
    "GROUND_ORDER",
    "MOVES",
    "RECOLOUR",
    "REGION",
    "RESTORE",
    "SEGMENT",
    "SPAN",
    "TAGS",
    "TRACK",
    "WAY",
    "Family",
]

Family = tuple[tuple[str, ...], tuple[str, ...]]
"""Templates of training, and those that are held out."""

CAPTION: Family = (
    (
        *(
            "describe the picture",
            "what is in the picture",
            "what do you see",
            "name what is in this picture",
        ),
        *("what is on this picture", "tell me what you see", "list the things in the picture"),
        *("what things are here", "say what the picture shows", "describe this picture for me"),
        *("what can be seen here", "name all things", "which things are in this picture"),
    ),
    ("describe what you see", "what does this picture show"),
)
GROUND: Family = (
    (
        *("where is {thing}", "give me the box of {thing}", "say where {thing} is", "locate {thing}"),
        *("tell me where {thing} is", "what are the corners of {thing}", "box of {thing}"),
        *("where can I find {thing}", "put a box on {thing}", "which box holds {thing}"),
    ),
    ("what is the box of {thing}", "in which box is {thing}"),
)
GROUND_ORDER: Family = (
    (
        *("what is the {order} thing, and where is it", "name the {order} thing and its box"),
        *("tell me the {order} thing and where it is", "which thing is {order}, and in which box"),
    ),
    ("say what the {order} thing is, and where",),
)
REGION: Family = (
    (
        *("what is this", "what is here", "describe this", "name the thing here", "what do you see here"),
        *("tell me what this is", "which thing is this", "name this", "what did I mark", "say what it is"),
        *("what am I pointing at", "describe the thing here", "and this"),
    ),
    ("what thing is this", "say what is here"),
)
SEGMENT: Family = (
    (
        *("segment {thing}", "mark {thing}", "cut out {thing}", "show me {thing}", "find {thing}"),
        *("highlight {thing}", "select {thing}", "mask {thing}", "make a mask of {thing}", "cut {thing} out"),
        *("I want a mask of {thing}", "draw the outline of {thing}", "pick out {thing}", "point out {thing}"),
        *("give me the pixels of {thing}", "show where exactly {thing} is", "mark the pixels of {thing}"),
        *("separate {thing} from the rest", "I need {thing} as a mask", "trace {thing}"),
    ),
    ("outline {thing}", "give me a mask of {thing}"),
)
EDITS: dict[str, Family] = {
    "remove": (
        (
            *("remove {thing}", "delete {thing}", "erase {thing}", "take away {thing}", "take {thing} away"),
            *("drop {thing}", "make {thing} vanish", "let {thing} disappear", "{thing} has to go"),
            *("I do not want {thing}", "wipe out {thing}", "take {thing} out of the picture"),
            *("get {thing} out of here", "the picture should be without {thing}", "rid me of {thing}"),
        ),
        ("get rid of {thing}", "make {thing} go away"),
    ),
    "recolour": (
        (
            *("make {thing} {to}", "paint {thing} {to}", "change {thing} to {to}", "colour {thing} {to}"),
            *("change the colour of {thing} to {to}", "I want {thing} in {to}", "I want {thing} to be {to}"),
            *("let {thing} be {to}", "{thing} must be {to}", "give {thing} the colour {to}"),
            *("turn the colour of {thing} to {to}", "recolour {thing} to {to}", "{to} for {thing}"),
        ),
        ("turn {thing} {to}", "{thing} should be {to}"),
    ),
    "replace": (
        (
            *("replace {thing} with {to}", "turn {thing} into {to}", "change {thing} into {to}"),
            *("replace {thing} by {to}", "I want {to} instead of {thing}", "put {to} in place of {thing}"),
            *("let {thing} become {to}", "exchange {thing} for {to}", "instead of {thing} show {to}"),
            *("use {to} instead of {thing}", "{thing} should become {to}"),
        ),
        ("swap {thing} for {to}", "make {thing} {to}"),
    ),
    "move": (
        (
            *("move {thing} {to}", "shift {thing} {to}", "push {thing} {to}", "drag {thing} {to}"),
            *("bring {thing} {to}", "send {thing} {to}", "I want {thing} further {to}", "pull {thing} {to}"),
            *(
                "let {thing} go {to}",
                "{thing} must move {to}",
                "move {thing} a bit {to}",
                "carry {thing} {to}",
            ),
        ),
        ("slide {thing} {to}", "{thing} should go {to}"),
    ),
    "add": (
        (
            *("add {thing} {to}", "put {thing} {to}", "I want {thing} {to}", "hang {thing} {to}"),
            *(
                "insert {thing} {to}",
                "set {thing} {to}",
                "there should be {thing} {to}",
                "I miss {thing} {to}",
            ),
            *("{to} put {thing}", "let there be {thing} {to}", "{to} I want {thing}"),
        ),
        ("place {thing} {to}", "{to} add {thing}"),
    ),
    "restyle": (
        (
            *("make it look like {to}", "change the style to {to}", "show it in {to}", "render it in {to}"),
            *("I want it in {to}", "use the style {to}", "paint it again in {to}", "make the picture {to}"),
            *("let it look like {to}", "give the picture a {to} look", "change the look to {to}"),
        ),
        ("turn it into {to}", "give it the style {to}"),
    ),
}
RESTORE: dict[str, Family] = {
    "denoise": (
        (
            *("remove the noise", "clean this picture", "there are specks on it", "denoise it"),
            *("clean the picture from noise", "there is noise in this picture", "the picture has grain"),
            *("take the noise away", "make it less noisy", "this picture is full of noise"),
        ),
        ("get rid of the noise", "this picture is noisy"),
    ),
    "deblur": (
        (
            *("sharpen this picture", "remove the blur", "make it sharp", "deblur it"),
            *("the picture is blurred", "take the blur away", "I want it sharper", "it is out of focus"),
            *("this picture is full of blur", "make this picture sharper"),
        ),
        ("this picture is not sharp", "get rid of the blur"),
    ),
    "upscale": (
        (
            *("enlarge this picture", "make the picture larger", "I want more pixels", "upscale it"),
            *("I need it larger", "double its size", "the picture is too small for me", "scale it up"),
            *("make a bigger picture of it", "this picture has too few pixels"),
        ),
        ("make it bigger", "this picture is too small"),
    ),
}

DRAW: Family = (
    (
        *("draw {things}", "make a picture of {things}", "paint {things}", "show me a picture of {things}"),
        *("I want to see {things}", "draw me {things}", "generate {things}", "sketch {things}"),
        *("give me a picture with {things}", "make an image with {things}", "create an image of {things}"),
        *("I would like a picture of {things}", "a picture of {things}", "create {things}"),
    ),
    ("I want a picture of {things}", "create a picture with {things}"),
)
FILM: Family = (
    (
        *(
            "make a clip of {things}",
            "film {things}",
            "show me a clip of {things}",
            "make a video of {things}",
        ),
        *("I want a video of {things}", "create a video with {things}", "give me a clip with {things}"),
        *("I would like a clip of {things}", "generate a clip of {things}", "a clip of {things}"),
    ),
    ("I want a clip of {things}", "create a clip with {things}"),
)
ANIMATE: Family = (
    (
        *(
            "let {thing} move {way}",
            "animate {thing}: it moves {way}",
            "make a clip where {thing} moves {way}",
        ),
        *("make {thing} move {way} in a clip", "I want a clip where {thing} goes {way}"),
        *("bring {thing} to life: it goes {way}", "animate it: {thing} should move {way}"),
        *("make a video in which {thing} moves {way}", "show how {thing} moves {way}"),
        *("{thing} should move {way}, as a clip", "have {thing} move {way} in a video"),
        *("in a clip {thing} goes {way}", "{thing} should go {way}: animate it", "make {thing} move {way}"),
        *("let {thing} come to life and go {way}", "{thing} moves {way}: make a clip of that"),
    ),
    ("make {thing} go {way} in a clip", "{thing} should come alive and move {way}"),
)
CHAINS: dict[str, Family] = {
    "draw_mark": (
        (
            *("draw {new} and segment {thing}", "make a picture of {new}, then mark {thing}"),
            *("paint {new}, then cut out {thing}", "show me a picture of {new}, and after that find {thing}"),
            *("sketch {new} and then highlight {thing}", "generate {new}, after that segment {thing}"),
            *("draw {new}. then show me {thing}", "create an image of {new} and select {thing}"),
        ),
        ("paint {new}, and after that cut out {thing}",),
    ),
    "draw_edit": (
        (
            *("draw {new} and make {thing} {to}", "make a picture of {new}, then paint {thing} {to}"),
            *("paint {new}, then make {thing} {to}", "draw {new}, and after that colour {thing} {to}"),
            *("generate {new} and change {thing} to {to}", "sketch {new} and then make {thing} {to}"),
            *(
                "draw {new}. then paint {thing} {to}",
                "create an image of {new}, after that make {thing} {to}",
            ),
        ),
        ("paint {new}, and after that change {thing} to {to}",),
    ),
    "draw_animate": (
        (
            *("draw {new} and let {thing} move {to}", "make a picture of {new}, then let {thing} move {to}"),
            *(
                "paint {new} and animate {thing}: it moves {to}",
                "draw {new}, and after that move {thing} {to}",
            ),
            *("generate {new} and then make a clip where {thing} moves {to}",),
            *("draw {new}. then let {thing} move {to}", "sketch {new}, after that let {thing} go {to}"),
        ),
        ("paint {new}, and after that animate {thing}: it moves {to}",),
    ),
    "mark_remove": (
        (
            *("segment {thing} and remove it", "mark {thing}, then delete it", "find {thing} and erase it"),
            *("show me {thing}, and after that take it away", "select {thing} and then remove it"),
            *("highlight {thing}. then delete it", "cut out {thing}, after that remove it"),
        ),
        ("cut out {thing}, and after that erase it",),
    ),
    "edit_animate": (
        (
            *("make {thing} {to} and let it move {way}", "paint {thing} {to}, then let it move {way}"),
            *("change {thing} to {to} and animate it: it moves {way}",),
            *(
                "make {thing} {to}, and after that let it move {way}",
                "colour {thing} {to} and let it go {way}",
            ),
            *("paint {thing} {to}. then let it move {way}",),
        ),
        ("change {thing} to {to}, and after that animate it: it moves {way}",),
    ),
}
# templates, and the assistant text
CHAT: dict[str, tuple[Family, str]] = {
    "greeting": (
        (
            (
                *("hello", "hi", "good morning", "hey", "good evening", "good afternoon", "hello there"),
                *("hi vitron", "hey there", "good to see you"),
            ),
            ("hi there", "good day"),
        ),
        "hello! what can I do?",
    ),
    "thanks": (
        (
            (
                *("thanks", "thank you", "that is great", "well done", "thank you very much", "good work"),
                *("thanks a lot", "many many thanks", "great", "that is good", "perfect"),
            ),
            ("many thanks", "great work"),
        ),
        "you are welcome.",
    ),
    "bye": (
        (
            (
                *("bye", "good bye", "see you", "that is all", "bye bye", "I have to go", "until tomorrow"),
                *("I am leaving", "see you later", "we are done"),
            ),
            ("I am done", "good night"),
        ),
        "good bye!",
    ),
    "able": (
        (
            (
                *("what can you do", "what are you good at", "how can you help me", "help", "what do you do"),
                *("tell me what you are good at", "what are you able to do", "what can I ask you"),
                *("show me what you can do", "what are you for"),
            ),
            ("tell me what you can do", "what do you know"),
        ),
        "I describe, mark, change and make pictures and clips.",
    ),
    "who": (
        (
            (
                *(
                    "who are you",
                    "what are you",
                    "what is your name",
                    "tell me who you are",
                    "are you a robot",
                ),
                *("are you a model", "who is this", "do you have a name"),
            ),
            ("say who you are", "are you a person"),
        ),
        "I am vitron, a small model.",
    ),
    "may": (
        (
            (
                *("can you edit pictures", "can you segment things", "can you make clips"),
                *("do you draw pictures", "could you edit a clip", "are you able to segment things"),
                *("can you track things", "could you draw something", "do you make clips"),
            ),
            ("are you able to edit pictures", "could you track things"),
        ),
        "yes. show me what, and say how.",
    ),
    "how": (
        (
            (
                *("how do you segment a picture", "how does editing work", "how do you make a picture"),
                *("how does segmenting work", "how do you edit a picture", "how do you draw"),
                *("how does tracking work", "how do you do that", "how do you make a clip"),
            ),
            ("how do you track a thing", "how does drawing work"),
        ),
        "I call a tool that does it.",
    ),
    "not": (
        (
            (
                *(
                    "do not segment anything",
                    "do not change the picture",
                    "please do nothing",
                    "stop",
                    "wait",
                ),
                *("do not edit anything", "do not make a picture", "leave it alone", "leave it as it is"),
                *("do not remove anything", "never mind", "nothing now"),
            ),
            ("do not draw anything", "leave the picture alone"),
        ),
        "all right, I do nothing.",
    ),
    "nice": (
        (
            (
                *("nice picture", "I like this", "what a nice picture", "I like it", "how nice", "nice"),
                *("I love this picture", "this looks nice", "what a nice clip"),
            ),
            ("I like this picture", "this is nice"),
        ),
        "I am glad you like it.",
    ),
    "unknown": (
        (
            (
                *("what is the weather", "who won the game", "what time is it", "what is two and two"),
                *(
                    "who is the queen",
                    "what year is it",
                    "tell me a joke",
                    "write a poem",
                    "what is for dinner",
                ),
                *("how far is the moon", "what is the capital of France", "who wrote this book"),
            ),
            ("what day is it", "who is the king"),
        ),
        "I only know pictures and clips.",
    ),
}
TAGS: Family = (
    (
        *("what does {tag} mean", "what is {tag}", "I found {tag} in a text", "do not write {tag}"),
        *("is {tag} a tag", "explain {tag}", "tell me about {tag}", "what is the use of {tag}"),
        *("somebody wrote {tag}", "why is there {tag} in your text", "have you seen {tag}"),
    ),
    ("why do you write {tag}", "what is the meaning of {tag}"),
)

WAY: Family = (
    (
        *("which way does {thing} move", "where does {thing} go", "in which direction does {thing} move"),
        *("which way does {thing} go", "where is {thing} going", "say which way {thing} moves"),
    ),
    ("in what direction does {thing} go", "{thing} moves which way"),
)
MOVES: Family = (
    (
        *("does {thing} move", "is {thing} moving", "does {thing} move at all", "tell me if {thing} moves"),
        *("do you see {thing} move", "is {thing} going anywhere"),
    ),
    ("is {thing} in motion", "does {thing} go anywhere"),
)
CHANGES: Family = (
    (
        *("does anything {verb}", "does a thing {verb}", "does something {verb} in this clip"),
        *("do you see something {verb}", "does any thing {verb} in the clip", "will anything {verb}"),
    ),
    ("is there a thing that {verb}s", "can you see anything {verb}"),
)
COUNT: Family = (
    (
        *("how many things are in the {end} frame", "how many things are there in the {end} frame"),
        *("count the things in the {end} frame", "how many things do you see in the {end} frame"),
    ),
    ("there are how many things in the {end} frame",),
)
SPAN: Family = (
    (
        *("when is {thing} there", "in which frames is {thing}", "when can you see {thing}"),
        *(
            "in which frames do you see {thing}",
            "from when to when is {thing} there",
            "when do you see {thing}",
        ),
    ),
    ("during which frames is {thing} there", "in which frames can you see {thing}"),
)
EVENT: Family = (
    (
        *("when does {thing} {verb}", "in which frame does {thing} {verb}", "say when {thing} {verb}s"),
        *("at which frame does {thing} {verb}", "tell me when {thing} {verb}s"),
    ),
    ("{thing} {verb}s in which frame",),
)
TRACK: Family = (
    (
        *("follow {thing}", "track {thing}", "mark {thing} in all frames", "keep an eye on {thing}"),
        *("segment {thing} in all frames", "follow {thing} through the clip", "watch {thing}"),
        *("mark {thing} in the whole clip", "find {thing} in all frames", "trace {thing} in the video"),
        *("track {thing} through the video", "show me {thing} in all frames", "stay on {thing}"),
    ),
    ("trace {thing} through the clip", "do not lose {thing}"),
)
RECOLOUR: Family = (
    (
        *("make the things {front} and the background {back}",),
        *("paint the things {front} and the background {back}",),
        *("I want {front} things on a {back} background",),
        *("change the things to {front} and the background to {back}",),
        *("colour the things {front} and the background {back}",),
        *("{front} things, {back} background",),
        *("give me {front} things on {back}", "let the things be {front} and the background {back}"),
        *("make the background {back} and the things {front}", "background {back}, things {front}"),
        *("on a {back} background I want {front} things", "the things {front}, the background {back}"),
        *("turn the background {back} and all things {front}", "let {back} be behind {front} things"),
        *("turn all things {front} and what is behind them {back}",),
    ),
    ("turn the things {front} and the background {back}", "{back} background and {front} things"),
)
