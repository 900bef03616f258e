"""Measurements of the services as processes, run by hand: `python -m bench`. No test asserts a time."""
