"""Federated averaging in plain PyTorch under encryption. Run it with `python examples/pytorch_loop.py`."""

import copy

import torch

import secagg

torch.manual_seed(0)
features = torch.randn(600, 20)
labels = features[:, :3].argmax(dim=1)
clients = {f"hospital-{i}": (features[i::10], labels[i::10]) for i in range(10)}
model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
params = secagg.Params(min_cohort=3, max_weight=100)

for round_number in range(5):
    deltas, weights = {}, {}
    for name, (x, y) in clients.items():
        local = copy.deepcopy(model)
        optimizer = torch.optim.SGD(local.parameters(), lr=0.5)
        for _ in range(10):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(local(x), y).backward()
            optimizer.step()
        deltas[name] = secagg.delta(local, model)
        weights[name] = len(x)
    result = secagg.simulate(deltas, weights=weights, params=params, dropouts={"hospital-3": "ShareKeys"})
    result.apply(model)
    accuracy = (model(features).argmax(dim=1) == labels).float().mean()
    print(f"round {round_number}: accuracy {accuracy:.2f}, {len(result.survivors)} survivors")
print(result.verdict)
