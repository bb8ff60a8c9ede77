"""Model families as values."""
