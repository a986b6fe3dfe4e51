"""The server side of the storyboard: plan a queued graph as cards, edit its schedule's text, list takes, show pictures."""
