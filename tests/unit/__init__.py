"""The logic, on a fake clock. Properties are tried with the same values each time, and are not timed: a busy machine
makes them slow, and not wrong."""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
