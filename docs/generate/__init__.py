"""Writes the parts of the pages that the code knows best: `make docs`.

A page holds marked blocks, and prose around them that nobody but a person touches:

    <!-- begin settings: written by `make docs` -->
    …
    <!-- end settings -->

What stands between the two lines is replaced by what the block of that name says (`heartlane` asked, not copied). A
test compares the two, so that a setting, a code, an event, a metric, a verb or a route can't be forgotten. What only a
person knows (what a worker does on an error, say) stands in the block's own module, and is asked for by name: one more
code without its sentence is an error here.
"""
