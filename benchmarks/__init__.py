"""Measurements beside other tools; each prints the table that the README shows."""
