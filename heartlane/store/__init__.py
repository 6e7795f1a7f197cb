"""The storage contract, its two engines, and the group-commit ledger through which every run changes."""
