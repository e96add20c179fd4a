"""A simulated server for tests and the demo: a real IPMI BMC (``ipmi_sim``) and a web panel, on one machine."""
