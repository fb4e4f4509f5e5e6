"""Light heads on features: scikit-learn on embeddings, torch on frames; saved as a directory, loaded without pickle."""
