"""Texts for people: the summary at the end of a run, and the message of a failing test."""
