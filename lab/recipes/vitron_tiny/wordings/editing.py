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
        have {thing} (deleted|erased|taken out)
        take {thing} and (remove|delete) it
        edit the (image|picture) so that {thing} is (gone|not there)
        clean {thing} (out|away)
        """,
        statements="""
        I (don't|do not) (want|need|like) {thing}
        I don't want {thing} (anymore|there|in the image)
        {thing} (has to|must|should|needs to|can) go
        {thing} should (not be there|be gone|be removed|disappear)
        I want {thing} (gone|removed|out|deleted)
        (the picture|the image) should be without {thing}
        (no more|away with) {thing}
        {thing}: (remove|delete|erase) it
        {thing} (is in the way|is not needed), (remove|erase) it
        I'd like {thing} (gone|deleted|to disappear)
        can {thing} be (deleted|erased)
        without {thing}
        """,
        held_out="""
        do away with {thing}
        make {thing} go away
        could you get {thing} out of the picture
        I'd like {thing} taken out
        {thing} does not belong here, delete it
        I'd rather not see {thing}
        please have {thing} removed
        would you wipe {thing} off the image
        discard {thing}
        could {thing} be removed
        I want the picture without {thing}
        I don't like {thing}, get rid of it
        we don't need {thing} here
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
        have {thing} (painted|in) {to}
        take {thing} and (make|paint|colour|color) it {to}
        edit {thing} to be {to}
        (turn|change) {thing} into a {to} one
        make {thing} a {to} one
        """,
        statements="""
        I want {thing} (to be|in|painted) {to}
        I'd like {thing} (to be|in) {to}
        {thing} (must|should|has to) be {to}
        {thing} in {to}
        {to} for {thing}
        I (need|want) {thing} {to}
        {thing}: (make|paint|colour|color) it {to}
        can {thing} be {to}
        {thing} (in {to}|{to})
        (the color|the colour) of {thing} (must|has to) be {to}
        """,
        held_out="""
        the colour of {thing} should be {to}
        could {thing} be {to} instead
        have {thing} coloured {to}
        I'd prefer {thing} in {to}
        {to} is a better colour for {thing}, please change it
        make {thing} look {to}
        I think {to} suits {thing}, make it so
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
        take {thing} and make it {to}
        have {thing} (replaced with|turned into) {to}
        """,
        statements="""
        I want {to} (instead of|in place of|rather than) {thing}
        I'd like {to} instead of {thing}
        {thing} (should|must) (become|be replaced by|be replaced with|turn into) {to}
        {to} instead of {thing}
        instead of {thing} (show|put|I want) {to}
        I want {thing} (to become|replaced by|replaced with|turned into) {to}
        {thing}: (replace it with|turn it into) {to}
        can {thing} be replaced with {to}
        I'd rather have {to} than {thing}
        """,
        held_out="""
        substitute {to} for {thing}
        make {thing} become {to}
        where {thing} is, I would rather have {to}
        can we have {to} in the place of {thing}
        take {thing} out and draw {to} there
        could {thing} become {to} instead
        I'd prefer {to} over {thing}
        I would like {to} rather than {thing}
        do a swap of {thing} for {to}
        {thing} should change into {to}
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
        take {thing} and (move|put) it {to}
        have {thing} moved {to}
        """,
        statements="""
        I want {thing} (further|more|moved) {to}
        {thing} should (be|sit|be placed) (further|more) {to}
        I'd like {thing} (further|moved|a bit more) {to}
        {thing} (belongs|has to be|must be) further {to}
        {thing} needs to be (further|moved) {to}
        {thing}: (move|shift|push) it {to}
        can {thing} be (further|pushed|shifted) {to}
        a bit further {to} with {thing}
        """,
        held_out="""
        take {thing} a bit further {to}
        could {thing} be a little further {to}
        have {thing} shifted {to}
        I need {thing} a little further {to}
        would you set {thing} further {to}
        give {thing} a push {to}
        can {thing} be moved {to}
        move the position of {thing} {to}
        {thing} would be better further {to}
        shove {thing} {to}
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
        can {thing} be added {to}
        one more thing {to}: {thing}
        {to} I'd love {thing}
        {to}: {thing}
        I miss {thing} {to}
        I want {thing} (added|placed|inserted) {to}
        """,
        held_out="""
        add one more object {to}, {thing}
        {to} I'd like {thing}
        could we have {thing} {to}
        throw in {thing} {to}
        have {thing} added {to}
        {to} there is room for {thing}, add it
        would you put in {thing} {to}
        what about {thing} {to}
        can I get {thing} {to}
        {to} there must be {thing}
        the picture needs {thing} {to}
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
        {to} would look good here, apply it
        I'd like to have the photo in {to} style
        restyle this as {to}
        """,
    ),
}
