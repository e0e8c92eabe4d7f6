from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from attacks.loading import data_of, model_of, named
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from pathlib import Path

PAIR = torch.rand(4, 3), torch.tensor([0, 1, 1, 0])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_function_is_found_in_the_working_directory(project: Path) -> None:
    (project / "my_federation.py").write_text("def net():\n    return 'a net'\nvalue = 3\n", encoding="utf-8")
    assert named("--model", "my_federation:net")() == "a net"
    with pytest.raises(ParameterError, match="no function value"):
        named("--model", "my_federation:value")
    with pytest.raises(ParameterError, match="no module nowhere"):
        named("--model", "nowhere:net")
    with pytest.raises(ParameterError, match="module:function"):
        named("--model", "my_federation")


def test_a_modules_own_missing_import_is_not_hidden(project: Path) -> None:
    (project / "my_broken.py").write_text("import surely_not_installed\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        named("--model", "my_broken:net")


def test_a_factory_makes_the_same_weights_every_time() -> None:
    make = model_of(lambda: nn.Linear(3, 2))
    assert torch.equal(next(make().parameters()), next(make().parameters()))
    with pytest.raises(InputError, match="--model must return"):
        model_of(lambda: 3)


@pytest.mark.parametrize("source", [PAIR, TensorDataset(*PAIR), DataLoader(TensorDataset(*PAIR), batch_size=3)])
def test_examples_come_as_pairs_datasets_or_loaders(source: object) -> None:
    clients, test = data_of(lambda: ([source, source], source))
    assert len(clients) == 2
    assert torch.equal(test.inputs, PAIR[0])
    assert torch.equal(clients[0].labels, PAIR[1])


@pytest.mark.parametrize("returned", [PAIR[0], ([PAIR[0]], PAIR), ([3], PAIR)])
def test_other_data_are_refused_by_name(returned: object) -> None:
    with pytest.raises(InputError, match="--data"):
        data_of(lambda: returned)
