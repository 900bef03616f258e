"""`python -m services.adapter`."""

from services.adapter.sqs_to_comfy_adapter import main

if __name__ == "__main__":
    main()
