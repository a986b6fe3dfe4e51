"""Error recycling: what is injected, and the bank that it is drawn from."""
