"""What all tests share."""

from hypothesis import settings

# A deadline measures the machine, not the claim. What `make test` says is the same on every machine and every day;
# `make test ARGS=--hypothesis-profile=explore` looks for new examples, more of them.
settings.register_profile("fedpact", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("fedpact")
