"""Heartlane beside what people would otherwise use, on one machine and one PostgreSQL; see `docs/peers.md`.

`python -m bench.peers` installs each peer into a virtual environment of its own, starts its real server, and holds the
same load on all of them in turns. What a peer's call is, and how its server is set up, stands in the peer's module.
"""
