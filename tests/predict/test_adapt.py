"""Batch normalisation adapted to a volume: to its statistics, alone, for its prediction only."""

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tiny_models import band_model, make_run_folder
from torch import Tensor, nn

from utseg.case import Case
from utseg.errors import InputError, SettingError
from utseg.networks import build_network
from utseg.predict.adapt import MOST_WINDOWS, adapted, batch_norms, predict_adapted, spread_windows
from utseg.predict.model import LoadedModel, load_model
from utseg.predict.pipeline import predict_cases
from utseg.predict.record import PredictionRecord, read_record
from utseg.predict.windows import predict_volumes

CPU = torch.device("cpu")
PATCH = (32, 32)
SETTINGS = {"patch_size": PATCH, "batch_size": 2, "num_classes": 4, "device": CPU}


def image(
    seed: int, shape: tuple[int, int, int] = (5, 40, 28), gain: float = 1.0, shift: float = 0.0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (gain * rng.gamma(2, 1, (1, *shape)) + shift).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network with batch normalisation whose statistics are of some training."""
    torch.manual_seed(0)
    small = build_network(
        "UTNet",
        in_channels=1,
        num_classes=4,
        base_channels=4,
        levels=2,
        block_list=(1, 2),
        num_blocks=(1, 1),
        num_heads=(1, 1),
        reduce_size=2,
    )
    small.train()
    with torch.no_grad():
        for _ in range(20):
            small(torch.randn(4, 1, 32, 32))
    return small.eval().requires_grad_(False)


def probabilities(
    networks: list[nn.Module], images: list[np.ndarray], share: float, **changes: object
) -> list[np.ndarray]:
    settings = SETTINGS | changes
    return [each.probabilities_KZYX for each in predict_adapted(networks, images, share=share, **settings)]


def statistics(network: nn.Module) -> list[Tensor]:
    return [
        buffer.clone() for norm in batch_norms(network) for buffer in (norm.running_mean, norm.running_var)
    ]


def test_at_full_share_it_is_what_training_mode_computes_of_the_volume(network: nn.Module) -> None:
    volume = image(1, (6, 32, 32))
    with adapted([network], volume, share=1.0, patch_size=PATCH, device=CPU), torch.no_grad():
        got = network.main_logits(torch.from_numpy(volume[0][:, None]))
    before = statistics(network)
    with torch.no_grad():
        for norm in batch_norms(network):
            norm.train()
        expected = network.main_logits(torch.from_numpy(volume[0][:, None]))
        network.eval()
        for buffer, value in zip(
            (buffer for norm in batch_norms(network) for buffer in (norm.running_mean, norm.running_var)),
            before,
            strict=True,
        ):
            buffer.copy_(value)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_layers_statistics_move_by_the_share(network: nn.Module) -> None:
    volume = image(2, (6, 32, 32), gain=3)
    norm = batch_norms(network)[0]
    seen: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    before = norm.running_mean.clone(), norm.running_var.clone()
    with adapted([network], volume, share=0.25, patch_size=PATCH, device=CPU):
        after = norm.running_mean.clone(), norm.running_var.clone()
    hook.remove()
    found = seen[0].mean((0, 2, 3)), seen[0].var((0, 2, 3), correction=0)
    for was, now, own in zip(before, after, found, strict=True):
        torch.testing.assert_close(now, 0.75 * was + 0.25 * own)
        assert not torch.allclose(now, was)


def test_no_share_is_plain_prediction(network: nn.Module) -> None:
    (plain,) = predict_volumes([network], [image(3)], **SETTINGS)
    np.testing.assert_array_equal(probabilities([network], [image(3)], 0.0)[0], plain.probabilities_KZYX)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_a_volume_is_predicted_alike_whatever_comes_with_it(network: nn.Module, batch_size: int) -> None:
    volumes = [image(4), image(5, (3, 60, 60), gain=4, shift=-2), image(6)]
    alone = [probabilities([network], [volume], 0.5)[0] for volume in volumes]
    together = probabilities([network], volumes[::-1], 0.5, batch_size=batch_size)[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_array_equal(alone[0], probabilities([network], volumes[:1], 0.5)[0])


def test_networks_are_what_they_were_even_after_an_error(network: nn.Module) -> None:
    before = statistics(network)

    def images() -> Iterator[np.ndarray]:
        yield image(7, gain=9)
        raise KeyError

    with pytest.raises(KeyError):
        probabilities([network], images(), 1.0)
    with (
        pytest.raises(ZeroDivisionError),
        adapted([network], image(7), share=1.0, patch_size=PATCH, device=CPU),
    ):
        raise ZeroDivisionError
    assert all(torch.equal(was, now) for was, now in zip(before, statistics(network), strict=True))
    assert not any(norm._forward_pre_hooks for norm in batch_norms(network))


def test_each_of_several_networks_is_adapted(network: nn.Module) -> None:
    torch.manual_seed(1)
    plain = build_network(
        "UNet", in_channels=1, num_classes=4, base_channels=4, levels=2, norm="instance"
    ).eval()
    volume = image(8, gain=2)
    both = probabilities([network, plain], [volume], 0.7)[0]
    mean = (probabilities([network], [volume], 0.7)[0] + probabilities([plain], [volume], 0.0)[0]) / 2
    np.testing.assert_allclose(both, mean, atol=1e-6)


def test_full_adaptation_undoes_a_scanners_gain_at_the_first_layer() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def main_logits(self, x: Tensor) -> Tensor:
            z = self.norm(x)
            return torch.cat([z, -z], 1)

    settings = {"num_classes": 2}
    volume = image(9, (4, 32, 32))
    first = probabilities([Normed().eval()], [volume], 1.0, **settings)[0]
    other = probabilities([Normed().eval()], [5 * volume - 3], 1.0, **settings)[0]
    np.testing.assert_allclose(first, other, atol=1e-4)
    untouched = probabilities([Normed().eval()], [5 * volume - 3], 0.0, **settings)[0]
    assert np.abs(untouched - first).max() > 0.1


def test_windows_are_those_of_prediction_spread_evenly() -> None:
    small = image(1, (3, 20, 50))
    windows = spread_windows(small, (24, 40))
    assert windows.shape == (6, 1, 24, 40)
    np.testing.assert_array_equal(windows[0, 0, 2:22], small[0, 0, :, :40])
    np.testing.assert_array_equal(windows[5, 0, 2:22], small[0, 2, :, 10:])
    assert windows[5, 0, 0, 0] == small[0, 2].min()
    many = image(1, (100, 32, 32))
    chosen = spread_windows(many, PATCH)
    assert len(chosen) == MOST_WINDOWS
    np.testing.assert_array_equal(chosen[[0, -1], 0], many[0, [0, 99]])


def predicted(folder: Path, models: list[LoadedModel], share: float, **changes: object) -> PredictionRecord:
    """Two small volumes predicted into the folder."""
    cases = []
    for name, gain in (("one", 100), ("two", 400)):
        path = folder / f"{name}.nii.gz"
        if not path.is_file():
            volume = np.random.default_rng(gain).gamma(2, gain, (3, 30, 34)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(volume.T, np.diag([1.25, 1.25, 8, 1])), path)
        cases.append(Case(name, name, (path,)))
    predict_cases(cases, models, folder / "masks", adapt_batchnorm=share, save_probabilities=True, **changes)
    record = read_record(folder / "masks")
    assert record is not None
    return record


def test_the_record_says_so_and_masks_of_another_share_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="utseg")
    models = [load_model(make_run_folder(tmp_path / "results" / "Tiny"), CPU)]
    plain, adapted_too = predicted(tmp_path, models, 0.0), predicted(tmp_path, models, 0.5)
    assert (plain.adapt_batchnorm, adapted_too.adapt_batchnorm) == (0.0, 0.5)
    for name in ("one", "two"):
        assert plain.cases[name].files[f"{name}.npz"] != adapted_too.cases[name].files[f"{name}.npz"]
    again = predicted(tmp_path, models, 0.5, resume=True)
    assert "2 masks are there and verified, 0 are to be made" in caplog.text
    assert again.cases == adapted_too.cases
    back = predicted(tmp_path, models, 0.0, resume=True)
    assert "0 masks are there and verified, 2 are to be made" in caplog.text
    assert back.cases == plain.cases


def test_wrong_shares_and_networks_without_batch_normalisation_are_refused(tmp_path: Path) -> None:
    models = [load_model(make_run_folder(tmp_path / "results" / "Tiny"), CPU)]
    with pytest.raises(SettingError, match=r"--adapt-batchnorm 1\.5: expected .* from 0 to 1"):
        predicted(tmp_path, models, 1.5)
    with pytest.raises(InputError, match=r"no batch normalisation in .*bands"):
        predicted(tmp_path, [band_model()], 0.5)
    assert not (tmp_path / "masks").exists()
