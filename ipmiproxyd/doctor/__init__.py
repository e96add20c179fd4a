"""The doctor: what is wrong with an agent, and with the way from it to a BMC, in plain words."""
