"""What travels over HTTP: request bodies, answers and error codes."""
