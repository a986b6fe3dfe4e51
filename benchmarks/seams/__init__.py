"""Which seam jumps least, and how much sharpness a blend costs, with the demo's trained tiny models; on CPU.

    python -m benchmarks.seams    # four clips of two pictures with four seeds each

The models make the clips once; each seam treatment shows the same clips. For every seam two numbers, both relative
to the same video a little away from it: the largest change between neighbouring frames around the seam (1 = no larger than
elsewhere), and the lowest sharpness around it (log10 of Laplacian energy; negative = ghosts or blur).
"""
