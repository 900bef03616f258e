"""Emulated AWS in one process: moto's server, with the behaviour this system depends on put in front of it.

`python -m services.devstack.emulator --port P` serves it on loopback. Beside the AWS APIs it answers under `/devstack/`
(`control.py`), where a test or the demo reads call counters and instance history and orders failures.
"""
