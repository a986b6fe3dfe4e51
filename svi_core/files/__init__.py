"""Files: written wholly or not at all, checked before they are opened, and known by their content."""
