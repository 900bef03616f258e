"""Faults on the running system, drawn from a seed; afterwards the books must balance."""
