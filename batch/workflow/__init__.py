"""A user's workflow: read it, convert it to what a server takes, put a story into it, check it against a server's nodes."""
