"""Whole days of the system in seconds: a virtual clock, the real decisions, and a model of everything round them."""
