"""The fault campaign: real servers, workers and databases that fail on purpose, and a proof of what still held.

    make chaos                          10 minutes on PostgreSQL, then SQLite's part
    python -m tests.chaos --help        shorter, smaller, with a seed

Every call of every client goes into a history (`history`), also those of which nobody knows whether they were done.
When all is well again, the runs and their logs are read, and a checker (`checker`) proves from both what the server
promises.
"""
