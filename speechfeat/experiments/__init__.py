"""Experiments: a corpus, an encoder, a head, a protocol in; scores with intervals, pictures and a report out."""
