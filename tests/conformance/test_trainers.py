"""Resume from the checkpoints that Lightning and Hugging Face write, in a new process, for every method."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import transformers
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import regrow
from regrow.attachment.attachment import Attachment
from tests.conformance.cases import METHODS, OPTIMIZERS, PROBLEMS, brisk
from tests.conformance.test_resume import flat

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the trainers' own, about workers and loggers
    pytest.mark.xdist_group("conformance-trainers"),  # one process, so that the fixture below is made once
]

HALF, WHOLE, TASKS = 6, 12, (5, 10)  # steps; a task ends after these
PROBLEM = PROBLEMS["mlp"]
OPTIMIZERS_OF_TRANSFORMERS = ("adamw_torch_fused", "adamw_torch", "sgd", "adafactor")


class Examples(Dataset):
    """The batches of a problem, one by one."""

    def __len__(self) -> int:
        return 4 * HALF

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        inputs, targets = PROBLEM.batch(number // 4)
        return {"x": inputs[number % 4], "labels": targets[number % 4]}


def turn(method: str, number: int) -> int:
    """Which of so many variants comes with a method."""
    return METHODS.index(method) % number


def end_task(plastic: Attachment, steps: int) -> None:
    """Tell of a task change, at the end of a task."""
    if steps in TASKS:
        batches = [PROBLEM.batch(100 + steps + number) for number in range(2)]
        plastic.task_changed(PROBLEM.loss(plastic.model.network(x), y) for x, y in batches)


class Learner(nn.Module):
    """What transformers' Trainer takes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.network = PROBLEM.network(seed)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(x)
        return {"loss": PROBLEM.loss(logits, labels), "logits": logits}


class Teller(transformers.TrainerCallback):
    """Tells of task changes."""

    def __init__(self, plastic: Attachment) -> None:
        self.plastic = plastic

    def on_step_end(self, args: Any, state: Any, control: Any, **other: Any) -> None:
        end_task(self.plastic, state.global_step)


def by_transformers(
    method: str, folder: Path, resume: bool, seed: int = 0, plain: bool = False
) -> transformers.Trainer:
    """A run of transformers' Trainer, from the beginning or from half-way."""
    settings = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=WHOLE,
        save_steps=HALF,
        optim=OPTIMIZERS_OF_TRANSFORMERS[turn(method, 4)],
        learning_rate=0.01,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = transformers.Trainer(Learner(seed), settings, train_dataset=Examples())
    if not plain:
        trainer.create_optimizer()
        example = dict(zip(("x", "labels"), PROBLEM.batch(0), strict=True)) if turn(method, 3) else None
        trainer.plastic = regrow.attach(trainer.model, trainer.optimizer, brisk(method), example=example, seed=seed)
        trainer.add_callback(Teller(trainer.plastic))
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{HALF}") if resume else None)
    return trainer


class LightningLearner(lightning.LightningModule):
    """As in Lightning's guide, with a line in `on_fit_start`."""

    def __init__(self, method: str, seed: int, plain: bool) -> None:
        super().__init__()
        self.network, self.method, self.seed, self.plain = PROBLEM.network(seed), method, seed, plain

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return PROBLEM.loss(self(batch["x"]), batch["labels"])

    def configure_optimizers(self) -> Any:
        optimizer = [*OPTIMIZERS.values()][turn(self.method, 4)](self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)]

    def on_fit_start(self) -> None:
        if not self.plain:
            self.plastic = regrow.attach(
                self,
                self.optimizers(),
                brisk(self.method),
                example=PROBLEM.batch(0)[0] if turn(self.method, 3) else None,
                seed=self.seed,
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        if not self.plain:
            end_task(self.plastic, self.global_step)


def by_lightning(method: str, folder: Path, resume: bool, seed: int = 0, plain: bool = False) -> LightningLearner:
    """A run of Lightning's Trainer, from the beginning or from half-way."""
    model = LightningLearner(method, seed, plain)
    keep = ModelCheckpoint(folder, "{step}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = lightning.Trainer(
        max_epochs=WHOLE // HALF,
        accelerator="cpu",
        callbacks=[keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    path = folder / f"step={HALF}.ckpt" if resume else None
    trainer.fit(model, DataLoader(Examples(), batch_size=4), ckpt_path=path, weights_only=True)
    return model


def outcome(trained: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"model": trained.network.state_dict(), "optimizer": optimizer.state_dict()}


def run_all(folder: Path, resume: bool, seed: int) -> dict[str, dict[str, Any]]:
    """All methods under both trainers."""
    warnings.simplefilter("ignore")
    found = {}
    for method in METHODS:
        trainer = by_transformers(method, folder / f"transformers-{method}", resume, seed)
        found[f"transformers-{method}"] = outcome(trainer.model, trainer.plastic.optimizer)
        model = by_lightning(method, folder / f"lightning-{method}", resume, seed)
        found[f"lightning-{method}"] = outcome(model, model.plastic.optimizer)
    return found


def go_on(folder: str) -> None:
    """The other process."""
    torch.set_num_threads(1)
    torch.save(run_all(Path(folder), resume=True, seed=9), f"{folder}/whole.pt")


@pytest.fixture(scope="module")
def through_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """All runs, through in this process, and from half-way in one other process."""
    folder = tmp_path_factory.mktemp("checkpoints")
    through = run_all(folder, resume=False, seed=0)
    call = f"from tests.conformance.test_trainers import go_on; go_on({str(folder)!r})"
    subprocess.run([sys.executable, "-c", call], check=True, cwd=Path(__file__).parents[2])
    return through, torch.load(folder / "whole.pt", weights_only=True)


@pytest.mark.parametrize("trainer", ["transformers", "lightning"])
@pytest.mark.parametrize("method", METHODS)
def test_resume_in_a_new_process_is_bit_identical(trainer: str, method: str, through_and_resumed: Any) -> None:
    through, resumed = (flat(states[f"{trainer}-{method}"]) for states in through_and_resumed)
    assert through.keys() == resumed.keys()
    assert [name for name, value in through.items() if not value.equal(resumed[name])] == []
    progress = next(value for name, value in through.items() if name.endswith("/progress"))
    assert progress.tolist() == [WHOLE, len(TASKS)]


@pytest.mark.parametrize("run", [by_transformers, by_lightning])
def test_a_method_comes_and_goes_between_checkpoints(run: Any, tmp_path: Path) -> None:
    run("cbp", tmp_path / "without", resume=False, plain=True)
    with_method = run("cbp", tmp_path / "without", resume=True)
    assert with_method.plastic.metrics()["steps"] == WHOLE - HALF
    run("l2-init", tmp_path / "with", resume=False)
    run("l2-init", tmp_path / "with", resume=True, plain=True)
