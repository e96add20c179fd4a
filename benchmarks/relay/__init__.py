"""The relay beside websockify and a TCP proxy: what it costs, how long it takes, what it holds.

Each relay runs on core 0; the load generator and the synthetic RFB server on core 1. All relays are measured in one
run, in turn; the numbers are medians. Every byte is checked.

=========  ==============================================================
stream     what the server says, and how each byte of it is checked
frames     a WebSocket as its client sees it
server     the synthetic RFB server, a process of its own
session    a viewer
load       the scenarios, each run in a process of its own
process    what a relay's processes use
relays     the relays that are measured
cases      which scenarios with which numbers, and the goals
measure    one run over all of it
report     the table; docs/performance.md
plot       docs/relay.svg
=========  ==============================================================
"""
