"""The report of scored videos: one HTML page that needs nothing else, whose first sight are the videos."""
