# SPDX-License-Identifier: Apache-2.0
"""Wordings of requests about one image: captions, boxes, regions, masks and restoration."""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["CAPTION", "GROUND", "GROUND_ORDER", "REGION", "RESTORE", "SEGMENT"]

CAPTION: Family = family(
    requests="""
    describe this (image|photo|picture)
    describe the (image|photo|picture)
    caption this (image|photo|picture)
    describe what is (in|on) the (image|picture)
    tell me what you see
    tell me what's in this (image|photo|picture)
    list (the|all|all the) (things|objects|shapes) in (the|this) (image|photo|picture)
    list everything you see
    name (the|all|all the) (things|objects|shapes)
    give me a (short |)(description|caption) of (this|the) (image|photo|picture)
    write a (short |)(caption|description) for this (image|photo|picture)
    say what this (image|photo|picture) shows
    explain what can be seen in this (image|photo|picture)
    tell me about this (image|photo|picture)
    """,
    questions="""
    what do you see
    what is in this (image|photo|picture)
    what's in the (image|photo|picture|pic)
    whats in this (image|photo|picture|pic)
    what is shown in (this|the) (image|photo|picture)
    what can you see (here|in this image|in the photo)
    what can be seen (here|in this image)
    what (things|objects|shapes) (are here|are in this image|can you see|do you see)
    which (things|objects|shapes) are in (this|the) (image|picture)
    what is (in|on) this pic
    what's (here|on the screen)
    what am I looking at
    what does (the|this) (image|photo) show
    what is there to see
    """,
    statements="""
    I want a (description|caption) of this (image|photo|picture)
    I need a caption
    image description
    caption
    """,
    held_out="""
    summarise what you see
    could you put this image into words
    what does this picture contain
    what's going on in this photo
    walk me through this picture
    can you tell which things you see
    which shapes does the image have
    I can't see the image, what is in it
    what would you say is shown here
    let me know what you see here
    I wonder what this image shows
    describe all you see
    """,
)
GROUND: Family = family(
    requests="""
    (locate|localize|localise) {thing}
    tell me where {thing} is
    say where {thing} is
    give me the (bounding box|box|coordinates|position|location) of {thing}
    give me a (bounding box|box) for {thing}
    give the (box|coordinates) of {thing}
    (put|draw) a (bounding box|box|rectangle|frame) (around|on) {thing}
    box {thing}
    return the (box|bounding box|coordinates) of {thing}
    detect {thing}
    find the (box|bounding box|coordinates) of {thing}
    (write|print) the box of {thing}
    """,
    questions="""
    where is {thing}
    where's {thing}
    wheres {thing}
    where exactly is {thing}
    where (can|do) I find {thing}
    where do you see {thing}
    where is {thing} located
    what (is|are) the (corners|coordinates) of {thing}
    what's the (position|location|bounding box) of {thing}
    what is the (position|location) of {thing}
    which box (holds|contains) {thing}
    do you know where {thing} is
    """,
    statements="""
    I want to know where {thing} is
    I'm looking for {thing}
    I need the (box|bounding box|coordinates) of {thing}
    box (of|for|around) {thing}
    bounding box of {thing}
    """,
    held_out="""
    what is the box of {thing}
    in which box is {thing}
    can you find out where {thing} is
    in what place is {thing}
    give me the corners of {thing}
    can you tell me the location of {thing}
    I can't find {thing}, where is it
    let me know the coordinates of {thing}
    at which coordinates is {thing}
    give me a rectangle around {thing}
    {thing} is where exactly
    help me find the position of {thing}
    """,
    place="image",
)
GROUND_ORDER: Family = family(
    requests="""
    (name|give me|tell me) the {order} (thing|object|shape) and (its box|where it is|its bounding box)
    (say|tell me) what the {order} (thing|object|shape) is and (where it is|in which box)
    (name|find) the {order} (thing|object) and (give its box|box it|tell me where it is)
    """,
    questions="""
    (what|what's|which) is the {order} (thing|object|shape), and where is it
    which (thing|object|shape) is {order}, and (where is it|in which box)
    what is the {order} (thing|object) and what are its coordinates
    """,
    statements="""
    I want the {order} (thing|object) and its (box|coordinates)
    the {order} (thing|object) and its (box|position)
    """,
    held_out="""
    say what the {order} thing is, and where
    what is {order} here, and where is it exactly
    identify the {order} object along with its box
    name and locate the {order} object
    which one is {order}, with its coordinates please
    what do you see {order}, and in what place
    I need to know the {order} object and its location
    can you name the {order} shape with its bounding box
    give the name and the box of the {order} thing
    where is the {order} object, and what is it
    """,
)
REGION: Family = family(
    requests="""
    describe (this|this region|this area|this part|this object)
    describe (what I marked|the marked object|the marked area|what is here|the thing here)
    tell me what (this|this thing|this object|it) is
    tell me what (I marked|I selected|is marked|is here)
    name (this|this object|this thing|the marked object|what I marked)
    say what (this|it|this thing) is
    identify (this|this object|what I marked)
    caption this (region|part)
    """,
    questions="""
    what is this
    what's this
    whats this
    what is this (thing|object|shape)
    what (is|do you see) here
    what is (in|inside) (this|the) (box|region|area)
    what's inside my (box|selection)
    what (did|have) I (mark|marked|select|selected|circle|circled)
    what am I pointing at
    which (thing|object|shape) is this
    what kind of (thing|object|shape) is this
    what is in the (marked|selected) (area|region|part)
    can you tell what this is
    and (this|this one)
    """,
    statements="""
    I want to know what this is
    this (thing|one) here
    """,
    held_out="""
    what thing is this
    say what is here
    what have you got here
    what would you call this
    any idea what this is
    what does my selection contain
    do you recognise this
    what thing have I marked
    what is it that I marked
    what does this region show
    give me a name for this
    please identify the thing in my box
    """,
)
SEGMENT: Family = family(
    requests="""
    (segment|mask|outline|highlight|select|isolate|mark|find) {thing}
    (extract|trace|show me|point out|circle|pick out|cut out|mask out) {thing}
    cut {thing} out
    segment out {thing}
    pick {thing} out
    find and (mark|highlight|segment|select) {thing}
    separate {thing} from the (background|rest)
    (make|create|generate|produce) a (mask|segmentation mask|segmentation) (of|for) {thing}
    (draw|trace) (an|the) outline (of|around) {thing}
    draw a line around {thing}
    get me (a|the) mask (of|for) {thing}
    give me (a|the) (segmentation|outline|pixels|cutout|exact shape) of {thing}
    give me the mask for {thing}
    show (me |)the (pixels|outline|mask) of {thing}
    show me (exactly |)where {thing} is
    mark (the pixels|all pixels) of {thing}
    mark where {thing} is
    show (exactly |)which pixels are {thing}
    shade {thing}
    find {thing} and (mark|highlight|segment|outline|mask) it
    look for {thing} and (mark|segment) it
    put a mask on {thing}
    (mark|highlight|outline) {thing} with a (line|colour|color)
    have {thing} (segmented|marked|outlined)
    get {thing} (segmented|cut out|masked)
    take {thing} and (segment|mask|mark) it
    """,
    questions="""
    which pixels (are|show) {thing}
    (where is {thing}|do you see {thing}|see {thing})? (segment|mark|outline|highlight) it
    (can|could) {thing} be (segmented|marked|highlighted|cut out|selected)
    """,
    statements="""
    I (want|need) (a|the) mask (of|for) {thing}
    I (want|need) {thing} (segmented|masked|as a mask|marked|highlighted|cut out|outlined)
    I'd like (a mask|the outline|the mask) of {thing}
    (mask|segmentation|outline) of {thing}
    {thing}: (segment|mark|mask|outline) it
    {thing} (segmented|as a mask|outlined)
    I'd like {thing} to be (segmented|marked|selected)
    """,
    held_out="""
    give me a mask of {thing}
    could you produce the silhouette of {thing}
    do a segmentation of {thing}
    I'd like to see {thing} outlined
    mark out {thing} in the image
    {thing} needs a mask
    delineate {thing}
    can I get a mask for {thing}
    would you be so kind as to mask out {thing}
    take {thing} out of the background as a mask
    can I have {thing} cut out
    show me exactly which pixels belong to {thing}
    could the outline of {thing} be drawn
    put a mask over {thing}
    let me see the pixels of {thing}
    """,
    place="image",
)
_IMAGE = "(this|the) (image|photo|picture)"
RESTORE: dict[str, Family] = {
    "denoise": family(
        requests=f"""
        denoise (it|this|this image|the image|this photo|the photo)
        remove the (noise|grain|specks)
        remove (the |all |)noise from {_IMAGE}
        (clean|clean up) (this|the) (image|photo|picture)
        clean the noise
        (reduce|filter|clear|get rid of|take away|take out) the (noise|grain)
        make (it|this image|the photo) less (noisy|grainy)
        take the (noise|grain|specks) (away|out)
        """,
        statements=f"""
        there (is|is a lot of|is so much) (noise|grain) (on it|in {_IMAGE})
        {_IMAGE} is (full of noise|too noisy|very noisy|grainy|so grainy)
        there are specks on it
        this is (too noisy|so noisy|grainy)
        I want (the noise gone|it without noise|a clean image)
        """,
        held_out="""
        get rid of all that noise
        this picture is noisy
        can you smooth out the grain
        too much grain in this one
        do some noise removal
        I'd like this photo without the noise
        I see noise all over the picture
        wipe the noise off this image
        my photo came out grainy, fix it
        there should be less noise
        could you make this picture clean again
        apply a noise filter
        """,
    ),
    "deblur": family(
        requests=f"""
        (sharpen|deblur) (it|this|this image|the image|this photo|the photo|this picture|the picture)
        (remove|reduce|fix|undo|get rid of|take away|take out) the blur
        remove (the |all |)blur from {_IMAGE}
        make (it|this|this image|the photo|the picture) (sharp|sharper|less blurry|crisp)
        take the blur (away|out)
        bring (it|this image|the photo) into focus
        sharpen it up
        """,
        statements=f"""
        (it|this|this image|the image|this photo) is (blurry|blurred|out of focus|too blurry|so blurry)
        the (photo|picture) (is|came out) (blurry|blurred|unsharp|out of focus)
        I want it (sharper|sharp|less blurry)
        there is (blur|a lot of blur) in {_IMAGE}
        {_IMAGE} is full of blur
        """,
        held_out="""
        this picture is not sharp
        get the blur out of it
        could you correct the focus
        this looks blurry, fix it
        I need a sharper version of this
        everything is so blurred here
        can you make everything crisp again
        do something about the blur
        the focus is off
        make it as sharp as you can
        clear up the blurry photo
        un-blur this image
        """,
    ),
    "upscale": family(
        requests=f"""
        (upscale|enlarge) (it|this|this image|the image|this photo|the photo|this picture|the picture)
        make (it|this image|the image|the photo|the picture) (bigger|larger|twice as big)
        double (its|the) (size|resolution)
        (increase|raise) (the|its) (resolution|size)
        scale (it|this|the image|the photo) up
        scale up (this|the) (image|photo)
        (give me|make) a (bigger|larger|high resolution) version
        (give me|make) a (bigger|larger) version of {_IMAGE}
        blow it up
        """,
        statements=f"""
        {_IMAGE} is too small
        {_IMAGE} has too few pixels
        I (want|need) (it|this) (larger|bigger)
        I (want|need) (more pixels|a higher resolution|a bigger image)
        the resolution is too low
        """,
        held_out="""
        make this one bigger
        this picture is too small for me
        can I have that at a higher resolution
        go up in resolution
        could you increase the number of pixels
        the size is too low, please make it larger
        I'd like a larger copy of this image
        make it twice the size
        my photo is tiny, can you enlarge it
        I need more resolution
        this needs more pixels
        do an upscale
        """,
    ),
}
