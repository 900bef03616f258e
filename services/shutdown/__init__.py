"""The Lambda that stops the GPU instance: facts, one pure decision, the action.

Runs in AWS's Python 3.11 runtime with nothing but its own boto3, so that the package is deployable as a zip of itself.
Entry: ``services.shutdown.handler.handler``.
"""
