# SPDX-License-Identifier: Apache-2.0
"""Wordings of edits of one image.

Slots: ``thing`` is a noun phrase with "the" ("add": with "a"), ``to`` is a colour (recolour), a noun phrase
with "a" (replace), a direction (move), a place with its preposition (add) or a style (restyle).
"""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["EDITS"]

EDITS: dict[str, Family] = {
    "remove": family(
        requests="""
        (remove|delete|erase|get rid of|take out|clear|eliminate|wipe out) {thing}
        (take away|take off|clear away|drop|wipe away|cut away|rub out|throw out|edit out) {thing}
        take {thing} (out|away|off|out of the picture|out of the image)
        (get|wipe|edit) {thing} (out|out of here)
        make {thing} (disappear|vanish|invisible)
        (remove|delete|erase) {thing} from (this|the) (image|photo|picture)
        let {thing} disappear
        (hide|scrub) {thing}
        """,
        statements="""
        I (don't|do not) (want|need|like) {thing}
        I don't want {thing} (anymore|there|in the image)
        {thing} (has to|must|should|needs to|can) go
        {thing} should (not be there|be gone|be removed|disappear)
        I want {thing} (gone|removed|out|deleted)
        (the picture|the image) should be without {thing}
        (no more|away with) {thing}
        """,
        held_out="""
        do away with {thing}
        make {thing} go away
        could you get {thing} out of the picture
        I'd like {thing} taken out
        lose {thing}
        {thing} is in the way, delete it
        I'd rather not see {thing}
        please have {thing} removed
        would you wipe {thing} off the image
        discard {thing}
        I want the picture without {thing}
        can we lose {thing}
        {thing} bothers me, get rid of it
        """,
        place="image",
    ),
    "recolour": family(
        requests="""
        make {thing} {to}
        (colour|color|paint|turn|recolour|recolor|dye|tint) {thing} {to}
        change the (colour|color) of {thing} to {to}
        (change|recolor|recolour) {thing} to {to}
        change {thing}'s (colour|color) to {to}
        (turn|set|switch) the (colour|color) of {thing} to {to}
        (recolour|recolor) {thing} (in|as) {to}
        (paint|colour|color|fill) {thing} (in|with) {to}
        give {thing} (a {to} colour|a {to} color|the colour {to}|the color {to})
        make the (colour|color) of {thing} {to}
        let {thing} be {to}
        repaint {thing} {to}
        repaint {thing} in {to}
        """,
        statements="""
        I want {thing} (to be|in|painted) {to}
        I'd like {thing} (to be|in) {to}
        {thing} (must|should|has to) be {to}
        {thing} in {to}
        {to} for {thing}
        I (need|want) {thing} {to}
        """,
        held_out="""
        the colour of {thing} should be {to}
        could {thing} be {to} instead
        have {thing} coloured {to}
        I'd prefer {thing} in {to}
        {to} is a better colour for {thing}, change it
        make {thing} look {to}
        can you give {thing} a coat of {to}
        use {to} for {thing}
        {thing} would look better in {to}
        shade {thing} {to}
        what about {to} for {thing}
        convert the color of {thing} to {to}
        """,
        place="image",
    ),
    "replace": family(
        requests="""
        (replace|swap|substitute|exchange) {thing} (with|for) {to}
        replace {thing} by {to}
        (turn|change|transform|convert|make) {thing} into {to}
        put {to} (in place of|where {thing} is instead of|instead of) {thing}
        (use|show|draw) {to} instead of {thing}
        (exchange|trade|switch) {thing} for {to}
        let {thing} become {to}
        change {thing} (to|for) {to}
        remove {thing} and put {to} (there|in its place|instead)
        (morph|reshape) {thing} into {to}
        """,
        statements="""
        I want {to} (instead of|in place of|rather than) {thing}
        I'd like {to} instead of {thing}
        {thing} (should|must) (become|be replaced by|be replaced with|turn into) {to}
        {to} instead of {thing}
        instead of {thing} (show|put|I want) {to}
        I want {thing} (to become|replaced by|replaced with|turned into) {to}
        """,
        held_out="""
        substitute {to} for {thing}
        make {thing} become {to}
        where {thing} is, I would rather have {to}
        can we have {to} in the place of {thing}
        take {thing} out and draw {to} there
        could {thing} be {to} instead
        I'd prefer {to} over {thing}
        I would rather see {to} than {thing}
        do a swap of {thing} for {to}
        rework {thing} into {to}
        have {thing} replaced by {to}
        """,
        place="image",
    ),
    "move": family(
        requests="""
        (move|shift|push|drag|slide|pull|nudge|bring) {thing} {to}
        (send|carry|take|relocate|reposition|transport) {thing} {to}
        (move|shift|push|slide|nudge) {thing} (a bit|a little|slightly|further|some way) {to}
        change the position of {thing} {to}
        put {thing} (further|more) {to}
        place {thing} further {to}
        """,
        statements="""
        I want {thing} (further|more|moved) {to}
        {thing} should (be|sit|be placed) (further|more) {to}
        I'd like {thing} (further|moved|a bit more) {to}
        {thing} (belongs|has to be|must be) further {to}
        {thing} needs to be (further|moved) {to}
        """,
        held_out="""
        scoot {thing} {to}
        could {thing} be a little further {to}
        have {thing} shifted {to}
        I need {thing} somewhat further {to}
        would you set {thing} further {to}
        give {thing} a push {to}
        can {thing} be moved {to}
        move the position of {thing} {to}
        {thing} would be better further {to}
        shove {thing} {to}
        displace {thing} {to}
        """,
        place="image",
    ),
    "add": family(
        requests="""
        (add|put|place|insert) {thing} {to}
        (set|stick|hang|include|position|drop) {thing} {to}
        (add|put|insert) {thing} for me {to}
        (add|put|insert|draw) {thing} (into|in) the (image|picture|photo) {to}
        (add|put) another thing {to}: {thing}
        let there be {thing} {to}
        """,
        statements="""
        I (want|need|would like) {thing} {to}
        I'd like {thing} {to}
        there should be {thing} {to}
        {to} (put|I want|add|there should be|place) {thing}
        {thing} (should be|must be|goes|belongs) {to}
        I want to have {thing} {to}
        {thing} is missing {to}
        I miss {thing} {to}
        I want {thing} (added|placed|inserted) {to}
        """,
        held_out="""
        fit {thing} in {to}
        {to} I'd like {thing}
        could we have {thing} {to}
        throw in {thing} {to}
        have {thing} appear {to}
        {to} there is room for {thing}, add it
        would you squeeze {thing} in {to}
        what about {thing} {to}
        can I get {thing} {to}
        let {thing} appear {to}
        extend the picture with {thing} {to}
        """,
    ),
    "restyle": family(
        requests="""
        make (it|this image|the picture|the photo) look like {to}
        (change|switch|set) the style to {to}
        (render|show|redo|redraw|repaint) (it|this|the image|the picture) in {to}
        (make|turn) the (whole |)(picture|image|photo) {to}
        give (it|the picture|the image|this photo) a {to} (look|style|effect|filter)
        apply (a|the) {to} (filter|effect|style|look)
        (use|add) a {to} (filter|effect|style)
        convert (it|the image|the picture|this photo) to {to}
        change the look to {to}
        let it look like {to}
        put a {to} filter on it
        """,
        statements="""
        I want (it|this image|the picture) in {to}
        I'd like a {to} (look|version)
        {to} (style|filter|look)
        I want a {to} (version|effect)
        the (image|picture) in {to} style
        """,
        held_out="""
        turn it into {to}
        give it the style {to}
        can I see this as {to}
        how would this look in {to}
        make it a {to} one
        transform the picture to a {to} version
        could you style this as {to}
        go for a {to} look
        {to} would suit this image, apply it
        I'd like to have the photo in {to} style
        restyle this as {to}
        """,
    ),
}
