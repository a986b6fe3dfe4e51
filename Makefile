# Thin names for the commands; without make, run the python lines yourself.
PYTHON ?= python3
export IMAGE PROMPTS CLIPS SEED

.PHONY: help demo test matrix train lint setup clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: ## make a long video in a real ComfyUI on CPU: make demo [IMAGE=my.png] [PROMPTS=my.txt] [CLIPS=5] [SEED=1]
	@$(PYTHON) -m demo $${IMAGE:+--image "$$IMAGE"} $${PROMPTS:+--prompts "$$PROMPTS"} $${CLIPS:+--clips "$$CLIPS"} $${SEED:+--seed "$$SEED"}

test: ## run the test suite: make test [SLOW=1]
	@$(PYTHON) -m tests $${SLOW:+--slow}

matrix: ## run tests on other ComfyUIs: make matrix COMFYUI="pinned ~/ComfyUI" [FRONT_ENDS="own newest"] [ROOMS="nodes e2e browser"]
	@$(PYTHON) -m dev.matrix $(COMFYUI) $(if $(FRONT_ENDS),--front-ends $(FRONT_ENDS)) $(if $(ROOMS),--rooms $(ROOMS))

train: ## train a tiny SVI LoRA on the CPU, from clips of the demo's world: the path of README's "Training"
	@$(PYTHON) -m demo.make_clips datasets/tiny
	@$(PYTHON) -m dev.environment --run -m training.cache --config training/configs/tiny.toml
	@$(PYTHON) -m dev.environment --run -m training.erft --config training/configs/tiny.toml

lint: ## check style and types, and the pack as the registry does: ruff, pyright, comfy-cli
	@$(PYTHON) -m dev.environment --extra test --run -m ruff check
	@$(PYTHON) -m dev.environment --extra test --run -m ruff format --check
	@$(PYTHON) -m dev.environment --extra test --run -m basedpyright
	@$(PYTHON) -m dev.environment --extra test --run -m dev.archive

setup: ## only set the environment up
	@$(PYTHON) -m dev.environment --extra test

clean: ## remove .runtime/: the environment, ComfyUI and every video of the demo
	rm -rf .runtime
