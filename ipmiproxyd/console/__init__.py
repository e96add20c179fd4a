"""The life of consoles: opening, watching and closing them over the ledger."""
