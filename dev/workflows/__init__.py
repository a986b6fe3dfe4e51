"""The builder of the shipped workflows."""
