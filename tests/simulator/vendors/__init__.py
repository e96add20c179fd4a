"""The simulated panel as each family of vendors: one module per family, or per close relatives."""
