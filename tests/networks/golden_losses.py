"""The loss of each network after five steps under a seed: a change that should not move numbers shows here that it did not.

python tests/networks/golden_losses.py      # from the root, writes golden_losses.json anew; say in the commit why numbers moved
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

FILE = Path(__file__).with_suffix(".json")
STEPS = 5


def loss_after_steps(name: str) -> float:
    """Cross-entropy over all outputs before the sixth step of SGD, for two images of 64 × 64 with blobs to find."""
    from networks.small import build_small

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order end up to a hundredth apart
    network = build_small(name, aux_loss=True)
    torch.manual_seed(1)
    x = F.avg_pool2d(torch.randn(2, 1, 68, 68), 5, stride=1) * 4
    target = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(STEPS + 1):
        loss = torch.stack([F.cross_entropy(logits, target) for logits in network(x)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return float(loss.detach())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from networks.small import SMALL

    FILE.write_text(json.dumps({name: round(loss_after_steps(name), 6) for name in SMALL}, indent=2) + "\n")
