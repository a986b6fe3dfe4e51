"""The dry run: what a requested run will do and cost, before any model loads."""
