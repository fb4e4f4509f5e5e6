"""Features of speech encoders that can be trusted."""
