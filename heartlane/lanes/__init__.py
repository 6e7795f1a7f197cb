"""The domain, pure: values, bounds and rules. No input or output, no clock, no randomness in this package."""
