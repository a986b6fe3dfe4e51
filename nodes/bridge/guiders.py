"""ComfyUI's GUIDER as a recipe: its class and settings guide every clip, with the model and the prompts of that clip.

A guider holds a model, the conditioning of two or more prompts, and settings. A run replaces the model for each expert, and
the positive and the negative prompt for each clip. Other prompts of the guider (DualCFGGuider, PerpNegGuider) stay, and are
conditioned on the clip's y too. The guider that the user connected, which ComfyUI caches, never changes.
Source: https://github.com/comfyanonymous/ComfyUI, comfy/samplers.py, class CFGGuider; comfy_extras/nodes_custom_sampler.py.
"""

import copy
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import comfy.model_patcher
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from .control import Control

POSITIVE, NEGATIVE = "positive", "negative"
_REPLACED = {"model_patcher", "model_options", "original_conds", "conds", "inner_model", "loaded_models"}
_CARRIED = ("patches", "object_patches", "wrappers", "callbacks", "injections", "hook_patches", "additional_models")
_WRAPPER_KEY = "svi_whole_clip"
_OF_CONDITIONING = {"hooks", "control", "area", "mask", "start_percent"}  # what ComfyUI's nodes set for sampling, besides text


@dataclass(frozen=True, eq=False)
class GuidanceRecipe:
    """A GUIDER, from which a guider is made for each clip and expert.

    Attributes:
        guider: as connected; never changed.
    """

    guider: comfy.samplers.CFGGuider

    @property
    def name(self) -> str:
        """Its class, for messages."""
        return type(self.guider).__name__

    @property
    def prompts(self) -> dict[str, list]:
        """Its CONDITIONING, besides the positive and the negative one, by name."""
        conds = self.guider.original_conds.items()
        return {name: [_as_connected(cond) for cond in made] for name, made in conds if name not in (POSITIVE, NEGATIVE)}

    @property
    def left_out(self) -> list[str]:
        """What its positive and its negative prompt set for sampling, besides text: a run replaces both."""
        replaced = (cond for name in (POSITIVE, NEGATIVE) for cond in self.guider.original_conds.get(name, ()))
        return sorted(_OF_CONDITIONING & {part for cond in replaced for part in cond})

    def check(self, models: Mapping[str, ModelPatcher], controls: Sequence[Control]) -> None:
        """Refuse a guider that cannot guide a run.

        Args:
            models: those that the run samples with, by the names of their inputs.

        Raises:
            ValueError: it holds or carries what a run would silently leave out.
        """
        if not isinstance(self.guider, comfy.samplers.CFGGuider):
            raise ValueError(
                f"guider is a {self.name}, which is not built on ComfyUI's CFGGuider, so a run cannot give it the model and "
                "the prompts of a clip: use a guider that is, or disconnect it and set cfg."
            )
        if POSITIVE not in self.guider.original_conds:
            raise ValueError(f"guider ({self.name}) has no positive prompt that a clip's could replace: use another guider.")
        self._require_replaceable()
        self._require_nothing_lost(models)
        if any(control.num_extra_passes for control in controls) and self._predicts_by_itself:
            raise ValueError(
                f"guider ({self.name}) makes its own predictions, so the guidance of control would be left out: disconnect "
                "guider and set cfg, or set audio_cfg of SVI Talk to 1."
            )
        try:
            self._settings(self._as_models("model"))
        except (TypeError, AttributeError, RuntimeError, copy.Error) as error:
            raise ValueError(
                f"guider ({self.name}) holds what cannot be copied for each clip ({error}): use another."
            ) from error

    def require_cfg(self, cfg: float | None) -> None:
        """Refuse a `cfg` of the schedule that this guider has no single place for; raise ValueError."""
        if cfg is not None and not self._has_plain_cfg:
            raise ValueError(
                f"the schedule sets cfg {cfg:g} for a clip, but guider ({self.name}) guides by settings of its own: take cfg "
                "out of the schedule, or disconnect guider."
            )

    def determinants(self, cfg: float | None) -> object:
        """Return what the key of a clip must contain of this guider, with the `cfg` that the schedule sets, if any."""
        classes = type(self.guider).__mro__[: type(self.guider).__mro__.index(comfy.samplers.CFGGuider)]
        code = [(kind.__qualname__, _functions_of(kind)) for kind in classes]
        kinds = sorted(self.guider.original_conds)
        return ("guider", code, self._settings(self._as_models("model")), kinds, self.prompts, cfg)

    def num_passes(self, cfg: float | None) -> int:
        """Return the forward passes of a step, at most: one for each prompt, or one at cfg 1."""
        plain_cfg = (self.guider.cfg if cfg is None else cfg) if self._has_plain_cfg else None
        return 1 if plain_cfg == 1.0 else len(self.guider.original_conds)

    def guider_for(
        self, model: ModelPatcher, prompts: Mapping[str, list], cfg: float | None, sigmas: torch.Tensor
    ) -> comfy.samplers.CFGGuider:
        """Return a guider with the settings of this one.

        Args:
            model: what it samples with.
            prompts: CONDITIONING by name; of those that the guider has no place for, none is used.
            cfg: replaces its own, if not None; see :meth:`require_cfg`.
            sigmas: those of the whole clip, which the guider sees in `sample_sigmas`, so that a schedule of its own spans both
                experts. The model sees those of its stage, as without a guider.
        """
        made = object.__new__(type(self.guider))
        vars(made).update(self._settings(self._as_models(model), made), model_patcher=model, original_conds={})
        made.model_options = comfy.model_patcher.create_model_options_clone(model.model_options)
        if self._predicts_by_itself:
            _show_whole_clip(made, sigmas)
        made.inner_set_conds({name: prompts[name] for name in self.guider.original_conds})
        if cfg is not None:
            made.set_cfg(cfg)
        return made

    @property
    def _predicts_by_itself(self) -> bool:
        return type(self.guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise

    @property
    def _has_plain_cfg(self) -> bool:
        """Whether one number is all of its guidance, as in ComfyUI's own CFGGuider."""
        is_plain = type(self.guider).set_cfg is comfy.samplers.CFGGuider.set_cfg and not self._predicts_by_itself
        return is_plain and NEGATIVE in self.guider.original_conds

    @property
    def _own(self) -> dict[str, object]:
        """Its attributes without model and prompts."""
        return {name: value for name, value in vars(self.guider).items() if name not in _REPLACED}

    def _settings(self, models: Mapping[int, object], itself: object = "guider") -> dict[str, object]:
        """Return copies of :attr:`_own`, with `models` (by their ids) and `itself` in place of its models and of the guider."""
        return copy.deepcopy(self._own, {**models, id(self.guider): itself})

    def _held(self) -> Iterator[ModelPatcher | torch.nn.Module]:
        """Yield every model and every part of one that it holds, its own model first."""
        return _models_in([self.guider.model_patcher, self._own], set())

    def _models(self) -> list[ModelPatcher]:
        return [held for held in self._held() if isinstance(held, ModelPatcher)]

    def _as_models(self, model: object) -> dict[int, object]:
        return dict.fromkeys(map(id, self._models()), model)

    def _require_replaceable(self) -> None:
        """Refuse a guider that is tied to its model, or to itself, in a way that a copy for each clip keeps."""
        for held in self._held():
            if isinstance(held, ModelPatcher) and not held.is_clone(self.guider.model_patcher):
                raise ValueError(
                    f"guider ({self.name}) holds a second model, but a run has one model for each expert: use a guider of one "
                    "model."
                )
            if isinstance(held, torch.nn.Module) and any(True for _ in held.parameters()):
                raise ValueError(
                    f"guider ({self.name}) holds a network ({type(held).__name__}), which a run cannot replace for each "
                    "expert: use another guider."
                )
        for name in vars(self.guider):
            if callable(getattr(comfy.samplers.CFGGuider, name, None)):
                raise ValueError(
                    f"guider ({self.name}) has its {name} replaced by another node, which a run cannot repeat for each clip: "
                    "disconnect that node."
                )

    def _require_nothing_lost(self, models: Mapping[str, ModelPatcher]) -> None:
        """Refuse a guider whose model has patches that none of `models` has: a run samples with those instead."""
        known = {part for model in models.values() for part in _parts_carried_by(model, model.model_options)}
        carried = [part for patcher in self._models() for part in _parts_carried_by(patcher, patcher.model_options)]
        lost = [place for place, value in (*carried, *_leaves(self.guider.model_options)) if (place, value) not in known]
        if lost:
            raise ValueError(
                f"guider ({self.name}) has a patch on its model ({' / '.join(map(str, lost[0]))}) that is not on "
                f"{' or '.join(models)} of SVI Generate, so a run would leave it out: connect the very same model to the "
                "guider, or use a guider that does not patch its model."
            )


def _as_connected(cond: Mapping[str, object]) -> list:
    """Return what ComfyUI's sampler made of a CONDITIONING entry as that entry."""
    return [cond.get("cross_attn"), {name: value for name, value in cond.items() if name not in ("cross_attn", "uuid")}]


def _models_in(value: object, seen: set[int]) -> Iterator[ModelPatcher | torch.nn.Module]:
    """Yield every ModelPatcher and every module that `value` holds, at any depth, without those inside them."""
    if id(value) in seen or isinstance(value, type | types.ModuleType | torch.Tensor):
        return
    seen.add(id(value))
    if isinstance(value, ModelPatcher | torch.nn.Module):
        yield value
        return
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, functools.partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    else:
        parts = [getattr(value, "__self__", None), *getattr(value, "__dict__", {}).values()]
    for part in parts:
        yield from _models_in(part, seen)


def _parts_carried_by(patcher: ModelPatcher, options: Mapping) -> Iterator[tuple]:
    """Yield each patch and option of a model as (its place, what tells it from others)."""
    yield from _leaves(options)
    for name in _CARRIED:
        yield from _leaves(getattr(patcher, name, None) or {}, (name,))


def _leaves(value: object, place: tuple = ()) -> Iterator[tuple]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*place, key))
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, place)
    else:
        is_plain = value is None or isinstance(value, bool | int | float | str)
        yield place, value if is_plain else id(value.model if isinstance(value, ModelPatcher) else value)


def _functions_of(kind: type) -> dict[str, Callable]:
    """Return the functions that a class defines, by name."""
    return {name: value for name, value in vars(kind).items() if isinstance(value, types.FunctionType)}


def _show_whole_clip(guider: comfy.samplers.CFGGuider, sigmas: torch.Tensor) -> None:
    """Let the code of `guider` see the `sigmas` of the whole clip, and the model behind it those of the stage."""
    predict, stage = guider.predict_noise, []

    def show_all(x: torch.Tensor, timestep: torch.Tensor, model_options: dict, seed: int | None = None) -> torch.Tensor:
        stage[:] = [model_options["transformer_options"]["sample_sigmas"]]
        return predict(x, timestep, _with_sigmas(model_options, sigmas.to(stage[0])), seed)

    def show_stage(execute: Callable, model, conds: list, x: torch.Tensor, timestep: torch.Tensor, options: dict) -> object:
        return execute(model, conds, x, timestep, _with_sigmas(options, stage[0]))

    guider.predict_noise = show_all
    wrappers = guider.model_options.setdefault("transformer_options", {}).setdefault("wrappers", {})
    calls = WrappersMP.CALC_COND_BATCH
    wrappers[calls] = {_WRAPPER_KEY: [show_stage], **wrappers.get(calls, {})}  # outside those of the model


def _with_sigmas(options: dict, sigmas: torch.Tensor) -> dict:
    return {**options, "transformer_options": {**options["transformer_options"], "sample_sigmas": sigmas}}
