"""What a ticket is called elsewhere, as a key that is its alone within its project.

An address is hashed: it may be longer than what an index of PostgreSQL can hold.
"""

from __future__ import annotations

import hashlib


def key_of_url(url: str) -> str:
    """The key of an address. Two addresses are the same only character for character.

    >>> key_of_url("https://tracker.example.com/1")
    'url:9cbfa5e7877a28a3c3fd44c95846251b'
    """
    return f"url:{digest(url)}"


def key_of_name(name: str) -> str:
    """The key of a name of the source's own, where it has no address.

    >>> key_of_name("SHOP-118")
    'key:SHOP-118'
    """
    return f"key:{name}"


def name_of_key(key: str | None) -> str | None:
    """The name that `key_of_name` made a key of; None for any other key."""
    return key.removeprefix("key:") if key is not None and key.startswith("key:") else None


def digest(text: str) -> str:
    """32 characters that tell a text from any other."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
