"""What the host does for each clip beside the models, step by step against 0.05 s, on CPU.

    python -m benchmarks.host            # two minutes
    python -m benchmarks.host --quick    # a small clip: to see that it works

The clip loop runs at 832 x 480 with the pack's own nodes, store and progress; stand-ins take the place of ComfyUI's sampler, of
the VAE and of ffmpeg, whose work is no step of the host or runs beside. What no step names is the row "all else". Frames lie on
the CPU here and on a GPU where there is one, so their row has no limit. Talk and Dance have rows of their own.
"""
