# Everything is installed through constraints.txt: a plain `pip install torch` pulls another build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: help quickstart libero dev test test-slow check format clean

help:
	@echo "make quickstart   set up .venv, then: train, roll out, capture, probe, report (10 minutes)"
	@echo "make test         set up .venv, then: lint, types and tests"
	@echo "make test-slow    the tests marked slow"
	@echo "make libero       add the LIBERO simulator to .venv"

$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(INSTALL) -e ".[dev]"
	touch $@

# robosuite, hf-libero and bddl without their own dependencies: those pull torchvision, whose
# builds break `import lightning` beside a CPU torch, and mujoco versions that robosuite cannot use.
$(VENV)/.libero: $(VENV)/.base
	$(INSTALL) -e ".[libero]"
	$(INSTALL) --no-deps robosuite==1.4.0 hf-libero==0.1.4 bddl==1.0.1
	touch $@

# openpi's own client wants numpy < 2: the tests run it from an environment of its own.
$(VENV)/.openpi_client: $(VENV)/.base tests/openpi_client.txt
	$(PYTHON) -m venv $(VENV)/openpi_client
	$(VENV)/openpi_client/bin/python -m pip install --disable-pip-version-check --quiet \
	  -r tests/openpi_client.txt || echo "no openpi-client here: its tests are skipped"
	touch $@

dev: $(VENV)/.dev

libero: $(VENV)/.libero

Q := runs/quickstart
# Steps of training: about two minutes on two cores for words, as long for actions.
WORDS := 1000
STEPS := 200
SCENES := 6000

# The main job on the built-in simulator: train a policy, let it and the same model untrained watch,
# probe both experts, test, report. What is done already is not done again.
quickstart: $(VENV)/.base
	$(BIN)/vla-lens questions --scenes $(SCENES) --env.image_size 96 --env.view base --kinds whole --per_frame 1 --out $(Q)/questions
	$(BIN)/vla-lens ki fit -c ki_tabletop_words --data.paths $(Q)/questions --run.steps $(WORDS) --step.ema_decay 0.97 --out $(Q)/words
	$(BIN)/vla-lens collect -c demos_tabletop --out $(Q)/demos
	$(BIN)/vla-lens norm-stats $(Q)/demos
	$(BIN)/vla-lens fast fit $(Q)/demos --vocab_size 320 --scale 5 --out $(Q)/tokenizer
	$(BIN)/vla-lens fast attach $(Q)/demos --tokenizer $(Q)/tokenizer
	$(BIN)/vla-lens ki fit -c ki_tabletop --data.paths $(Q)/demos --weights $(Q)/words/checkpoints/$(WORDS) --run.steps $(STEPS) --step.ema_decay 0.97 --out $(Q)/policy
	$(BIN)/vla-lens ki eval --checkpoint $(Q)/policy/checkpoints/$(STEPS) --env.image_size 96 --env.view base --episodes 0:1 --max_steps 60 --videos 1 --out $(Q)/success
	$(BIN)/vla-lens collect -c collect_trained --policy.checkpoint $(Q)/policy/checkpoints/$(STEPS) --out $(Q)/data
	$(BIN)/vla-lens collect -c collect_trained --policy.checkpoint $(Q)/policy/checkpoints/$(STEPS) --policy.untrained true --out $(Q)/untrained
	$(BIN)/vla-lens shards inspect $(Q)/data
	rm -rf $(Q)/vlm $(Q)/action
	$(BIN)/vla-lens fit -c probe --data.path $(Q)/data --data.control_data $(Q)/untrained --data.expert vlm --data.layer all --out $(Q)/vlm
	$(BIN)/vla-lens test --ckpt_path $(Q)/vlm/checkpoints/last.ckpt
	$(BIN)/vla-lens report $(Q)/vlm
	$(BIN)/vla-lens fit -c probe --data.path $(Q)/data --data.control_data $(Q)/untrained --data.expert action --data.layer all --out $(Q)/action
	$(BIN)/vla-lens test --ckpt_path $(Q)/action/checkpoints/last.ckpt
	$(BIN)/vla-lens report $(Q)/action
	@echo "The policy was trained for $(WORDS) and $(STEPS) steps: it moves, but does not act on the words yet. Its success:"
	@echo "$(Q)/success/report.json. What its layers say beside those of the same model untrained:"
	@echo "$(Q)/vlm/report.html and $(Q)/action/report.html, or: $(BIN)/tensorboard --logdir $(Q)"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: check $(VENV)/.libero $(VENV)/.openpi_client
	$(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/.dev $(VENV)/.libero
	$(BIN)/python -m pytest -q -n 2 -m slow

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs dist .pytest_cache .ruff_cache .hypothesis
