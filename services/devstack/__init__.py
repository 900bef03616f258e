"""The whole system on one machine: emulated AWS, a pretend GPU box, and the real services between them."""
