"""Files: written atomically, checked when opened, and identified by their content."""
