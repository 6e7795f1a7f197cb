"""Tickets from elsewhere: what sources answer, how it is read, and what becomes of it."""
