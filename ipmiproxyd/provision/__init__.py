"""From a bare host to an agent, and back."""
