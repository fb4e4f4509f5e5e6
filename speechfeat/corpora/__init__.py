"""Known corpora as their authors distribute them: utterances with labels, official splits and trials."""
