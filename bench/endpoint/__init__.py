"""AWS as far as our services need it, in memory and fast: a stand-in to measure against, not to test against."""
