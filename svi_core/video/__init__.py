"""Frames to video files and back: writing, joining, seams, colours, and sound."""
