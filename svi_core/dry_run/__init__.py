"""What a run will be and cost, before any model loads."""
