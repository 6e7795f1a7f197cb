"""What Heartlane's server costs and reaches, measured against the floor of the same server program.

`python -m bench --help` lists what can be measured; `docs/performance.md` says how to read the figures.
"""
