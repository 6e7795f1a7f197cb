"""The routes that people use, one module per noun."""
