"""Small encoders from large ones: what is learnt, from whom, from which recordings, and the training itself."""
