"""Looks at a deployment in AWS and says what is wrong with it, and what to do: facts, pure judgement, a report.

It only reads. `python -m services.doctor` or `gpu-doctor`.
"""
