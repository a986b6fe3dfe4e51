"""Make clips as SVI Generate does, in this process."""

import torch


def latents_of(module, folder, plan, maker, after_each=lambda: None) -> list[torch.Tensor]:
    found = []
    with torch.inference_mode(), module("svi_core.store.run_store").RunStore(folder) as store:
        clip, request = None, plan.request(0)
        while request is not None:
            clip = module("svi_core.clips.chain").make_clip(plan, maker, store, request, clip)
            request = plan.following(request)
            found.append(clip.latent)
            after_each()
    return found
