"""The loop against the same job of stock ComfyUI nodes: exact counts, CPU time, memory versus clips; on CPU with tiny models.

    python -m benchmarks.loop            # under 10 minutes; resumes after a stop
    python -m benchmarks.loop --fresh    # measure all of it again

Both jobs make N clips of 81 frames with the same two tiny random experts, the same LoRAs, 4 steps and cfg 1, a prompt per clip,
and end in SaveVideo. Ours is SVI Generate with layout 2.0 Pro. The stock job is what users build: for each clip
WanImageToVideo on the last frame of the clip before, two KSamplerAdvanced, VAEDecode; then all frames in one IMAGE batch, and
CreateVideo. Ours shows 76 new frames a clip, the stock job 80, so times are also given for each frame shown.
"""
