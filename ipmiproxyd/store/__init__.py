"""What must survive the daemon."""
