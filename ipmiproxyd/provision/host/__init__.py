"""The engine of provisioning: small modules that a bare host's Python (3.9 or later) is handed by standard input."""
