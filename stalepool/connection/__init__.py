"""One pooled connection: the patched functions, in the order of its life, and what they share."""
