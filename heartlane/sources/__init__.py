"""Where tickets already are: GitHub, GitLab, Linear, Jira, files. Read page by page, and made fit for Heartlane.

    model       what a source is: pages of items, and a cursor from one to the next
    http        one request to a source: patience, rate limits, answers that are none
    github …    one module for each source
    roles       which labels ask for which roles
    shape       an item as the fields of a ticket, within the contract's bounds
    importing   the walk: a page read, a page written, the cursor kept

The command line imports with these, and so does the server.
"""
