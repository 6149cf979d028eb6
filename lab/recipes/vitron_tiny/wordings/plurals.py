# SPDX-License-Identifier: Apache-2.0
"""Wordings of requests about several objects; the slot ``things`` is a bare plural such as "red circles"."""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["PLURALS"]

PLURALS: dict[str, Family] = {
    "segment_all": family(
        requests="""
        (segment|mask|outline|highlight|select|mark|find|cut out|extract|isolate) all {things}
        (segment|mask|outline|highlight|select|mark|find|cut out) all (the|of the) {things}
        (segment|mark|highlight|outline|mask) each of the {things}
        (make|create) a mask (of|for) all {things}
        show me all (the |){things}
        give me (a mask|the masks) of all {things}
        """,
        statements="""
        I (want|need) (a mask|masks) of all {things}
        all {things}: segment them
        """,
        held_out="""
        could you produce masks for all the {things}
        I'd like to see all {things} outlined
        delineate all {things}
        mark out any {things} you find
        where there are {things}, mask them
        can I get every one of the {things} segmented
        put a mask over all {things}
        do a segmentation of all {things}
        have all of the {things} cut out
        let me see the pixels of all {things}
        """,
        place="image",
    ),
    "remove_all": family(
        requests="""
        (remove|delete|erase|get rid of|take out|clear|wipe out|eliminate) all {things}
        (remove|delete|erase|get rid of|take out|clear) all (the|of the) {things}
        (remove|delete|erase|clear) each of the {things}
        take all {things} (away|out)
        make all (the |){things} (disappear|vanish)
        """,
        statements="""
        all {things} (must|should|have to) go
        I don't want any {things}
        I want (all|all the) {things} (gone|removed)
        (no more|away with all) {things}
        """,
        held_out="""
        do away with all {things}
        could all of the {things} be deleted
        wipe every one of the {things} off the picture
        I don't like the {things}, get rid of all of them
        have all the {things} taken out
        please have all {things} removed
        I'd rather see none of the {things}
        discard all {things}
        we don't need any {things} here
        where there are {things}, delete them
        """,
        place="image",
    ),
    "segment_both": family(
        requests="""
        (segment|mask|outline|highlight|select|mark|find|cut out|extract|isolate|trace) both {things}
        (segment|mask|outline|highlight|select|mark|cut out) both (the|of the) {things}
        (segment|mask|mark|highlight|outline) the two {things}
        (make|create) a mask (of|for) both {things}
        (show|give) me (both|the two) {things}
        """,
        statements="""
        I (want|need) a mask of both {things}
        both {things}: segment them
        """,
        held_out="""
        could you produce masks for the pair of {things}
        I'd like to see both {things} outlined
        delineate both {things}
        mark out this pair of {things}
        can I get the two {things} segmented
        put a mask over both {things}
        do a segmentation of both {things}
        have both of the {things} cut out
        let me see the pixels of both {things}
        there are two {things}, segment both
        """,
        place="image",
    ),
    "remove_both": family(
        requests="""
        (remove|delete|erase|get rid of|take out|clear|wipe out|eliminate) both {things}
        (remove|delete|erase|get rid of|take out|clear) both (the|of the) {things}
        (remove|delete|erase|get rid of|take out|clear) the two {things}
        take both {things} (away|out)
        make both (the |){things} (disappear|vanish)
        """,
        statements="""
        both {things} (must|should|have to) go
        I don't want (both|the two) {things}
        I want (both|the two) {things} (gone|removed)
        """,
        held_out="""
        do away with both {things}
        could both of the {things} be deleted
        wipe the pair of {things} off the picture
        I don't like the two {things}, get rid of them
        we don't need both {things}
        please have both {things} removed
        I'd rather see neither of the {things}
        discard both {things}
        there are two {things}, delete both
        have the two {things} taken out
        """,
        place="image",
    ),
}
