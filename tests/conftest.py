"""What all tests share."""

from hypothesis import settings

# A deadline measures the machine, not the claim.
settings.register_profile("fedpact", deadline=None)
settings.load_profile("fedpact")
