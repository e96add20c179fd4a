"""The logic, on a fake clock. A busy machine makes properties slow, and not wrong: nothing of theirs is timed."""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
