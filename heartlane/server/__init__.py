"""The HTTP server: who may call, how much, and what they are answered."""
