"""The web panels of BMCs: one module per family, without I/O."""
