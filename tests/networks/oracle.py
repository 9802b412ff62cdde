"""The straightforward form of UTNet: what the fast one has to equal, and what it is timed against.

Written for plainness: einsum, every tensor at full resolution, no fusing, no recomputing, float64 if asked. Parameter names
and layouts are those of official checkpoints (channels split as (dim_head, heads)), so the same weights fill both through the importer.
It takes only sizes whose feature maps are divisible; it knows nothing of padding.

Axes: B batch, C channels, H W pixels, D dim_head, E heads, Q query pixels, K keys (reduce_size²), R reduce_size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if in_channels == out_channels and stride == 1:
        return nn.Sequential()
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), conv)


class BasicBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return out + self.shortcut(x)


class BottleneckBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        inner = out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        return out + self.shortcut(x)


class Separable(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def cells(size: int, reduce_size: int) -> Tensor:
    """The coarse cell that each of `size` positions falls into."""
    return torch.tensor([i * reduce_size // size for i in range(size)])


class Bias2D(nn.Module):
    def __init__(self, reduce_size: int, heads: int) -> None:
        super().__init__()
        self.r = reduce_size
        self.relative_position_bias_table = nn.Parameter(
            torch.randn((2 * reduce_size - 1) ** 2, heads) * 0.02
        )

    def forward(self, q_BEQD: Tensor, H: int, W: int) -> Tensor:
        r = self.r
        y, x = (g.flatten() for g in torch.meshgrid(cells(H, r), cells(W, r), indexing="ij"))
        ky, kx = (g.flatten() for g in torch.meshgrid(torch.arange(r), torch.arange(r), indexing="ij"))
        index_QK = (y[:, None] - ky + r - 1) * (2 * r - 1) + (x[:, None] - kx + r - 1)
        return self.relative_position_bias_table[index_QK].permute(2, 0, 1)[None]


class Logits1D(nn.Module):
    def __init__(self, reduce_size: int, dim_head: int) -> None:
        super().__init__()
        self.r = reduce_size
        self.key_rel_w = nn.Parameter(torch.randn(2 * reduce_size - 1, dim_head) * 0.02)
        self.key_rel_h = nn.Parameter(torch.randn(2 * reduce_size - 1, dim_head) * 0.02)

    def parts(self, q_BEQD: Tensor, H: int, W: int) -> tuple[Tensor, Tensor]:
        r = self.r
        y, x = (g.flatten() for g in torch.meshgrid(cells(H, r), cells(W, r), indexing="ij"))
        ky, kx = (g.flatten() for g in torch.meshgrid(torch.arange(r), torch.arange(r), indexing="ij"))
        s_w = torch.einsum("beqd,qkd->beqk", q_BEQD, self.key_rel_w[kx - x[:, None] + r - 1])
        s_h = torch.einsum("beqd,qkd->beqk", q_BEQD, self.key_rel_h[ky - y[:, None] + r - 1])
        return s_w, s_h

    def forward(self, q_BEQD: Tensor, H: int, W: int) -> Tensor:
        s_w, s_h = self.parts(q_BEQD, H, W)
        return s_w + s_h


class Attention(nn.Module):
    """Shared by encoder (`to_qkv`) and decoder (`to_q`, `to_kv`)."""

    def __init__(
        self, q_channels: int, kv_channels: int, heads: int, s: dict[str, object], *, self_attention: bool
    ) -> None:
        super().__init__()
        self.heads, self.dim_head, self.r = heads, q_channels // heads, s["reduce_size"]
        self.projection = s["projection"]
        if self_attention:
            self.to_qkv = Separable(q_channels, 3 * q_channels)
        else:
            self.to_kv = Separable(kv_channels, 2 * q_channels)
            self.to_q = Separable(q_channels, q_channels)
        self.to_out = Separable(q_channels, q_channels)
        if s["relative_position"] == "2d-bias":
            self.relative_position_encoding = Bias2D(self.r, heads)
        elif s["relative_position"] == "1d-qk":
            self.relative_position_encoding = Logits1D(self.r, self.dim_head)
        else:
            self.relative_position_encoding = None
        self.dropout = nn.Dropout(s["dropout"])

    def split(self, x_BCHW: Tensor) -> Tensor:
        B, _, H, W = x_BCHW.shape
        return x_BCHW.reshape(B, self.dim_head, self.heads, H * W).permute(0, 2, 3, 1)

    def shrink(self, x_BCHW: Tensor) -> Tensor:
        if self.projection == "interp":
            return F.interpolate(x_BCHW, (self.r, self.r), mode="bilinear", align_corners=True)
        return F.adaptive_max_pool2d(x_BCHW, (self.r, self.r))

    def forward(self, x_BCHW: Tensor, low: Tensor | None = None) -> Tensor:
        H, W = x_BCHW.shape[-2:]
        if low is None:
            q, k, v = self.to_qkv(x_BCHW).chunk(3, dim=1)
        else:
            q = self.to_q(x_BCHW)
            k, v = self.to_kv(low).chunk(2, dim=1)
        q, k, v = self.split(q), self.split(self.shrink(k)), self.split(self.shrink(v))
        logits = torch.einsum("beqd,bekd->beqk", q, k)
        if self.relative_position_encoding is not None:
            logits = logits + self.relative_position_encoding(q, H, W)
        weights = self.dropout(F.softmax(logits * self.dim_head**-0.5, dim=-1))
        out = torch.einsum("beqk,bekd->beqd", weights, v)
        out = out.permute(0, 3, 1, 2).reshape(x_BCHW.shape)
        return self.dropout(self.to_out(out))


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, heads: int, s: dict[str, object]) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.attn = Attention(channels, channels, heads, s, self_attention=True)
        self.bn2 = nn.BatchNorm2d(channels)
        self.mlp = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.bn1(x))
        return x + self.mlp(F.relu(self.bn2(x)))


class DecoderAttention(nn.Module):
    def __init__(self, channels: int, heads: int, s: dict[str, object]) -> None:
        super().__init__()
        self.bn_l = nn.BatchNorm2d(2 * channels)
        self.bn_h = nn.BatchNorm2d(channels)
        self.conv_ch = nn.Conv2d(2 * channels, channels, 1)
        self.attn = Attention(channels, 2 * channels, heads, s, self_attention=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.mlp = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        up = F.interpolate(self.conv_ch(low), high.shape[-2:], mode="bilinear", align_corners=True)
        x = up + self.attn(self.bn_h(high), self.bn_l(low))
        return x + self.mlp(F.relu(self.bn2(x)))


class Down(nn.Module):
    """As in the official code, levels without attention know neither strides nor bottlenecks."""

    def __init__(self, channels: int, heads: int | None, count: int, s: dict[str, object]) -> None:
        super().__init__()
        if heads is None:
            first = BasicBlock(channels, 2 * channels)
            self.conv = nn.Sequential(nn.MaxPool2d(2), first, BasicBlock(2 * channels, 2 * channels))
            return
        block = BottleneckBlock if s["bottleneck"] else BasicBlock
        strided = s["downsampling"] == "strided"
        pool = [] if strided else [nn.MaxPool2d(2)]
        first = block(channels, 2 * channels, 2 if strided else 1)
        self.blocks = nn.Sequential(
            *pool, first, *(TransformerBlock(2 * channels, heads, s) for _ in range(count))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x) if hasattr(self, "blocks") else self.conv(x)


class Up(nn.Module):
    def __init__(self, channels: int, heads: int | None, s: dict[str, object]) -> None:
        super().__init__()
        if heads is None:
            self.conv_ch = nn.Conv2d(2 * channels, channels, 1)
            self.conv = nn.Sequential(BasicBlock(2 * channels, channels), BasicBlock(channels, channels))
        else:
            block = BottleneckBlock if s["bottleneck"] else BasicBlock
            self.attn_decoder = DecoderAttention(channels, heads, s)
            self.blocks = nn.Sequential(block(2 * channels, channels))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        if hasattr(self, "blocks"):
            return self.blocks(torch.cat([self.attn_decoder(low, high), high], dim=1))
        up = F.interpolate(low, high.shape[-2:], mode="bilinear", align_corners=True)
        return self.conv(torch.cat([high, self.conv_ch(up)], dim=1))


class OracleUTNet(nn.Module):
    """Four levels. `num_heads` and `num_blocks` end with level 4's entry, as in official configurations."""

    def __init__(
        self, in_channels: int = 1, num_classes: int = 4, base_channels: int = 32, **settings: object
    ) -> None:
        super().__init__()
        s: dict[str, object] = {
            "block_list": (1, 2, 3, 4), "num_blocks": (1, 1, 1, 1), "num_heads": (4, 4, 4, 4), "reduce_size": 8,
            "projection": "interp", "relative_position": "2d-bias", "aux_loss": True,
            "attention_in": "both", "downsampling": "maxpool", "bottleneck": False, "dropout": 0.1,
        }  # fmt: skip
        assert set(settings) <= set(s), settings
        s.update(settings)
        b = base_channels
        down, up = (
            set(s["block_list"]) if s["attention_in"] in ("both", part) else set()
            for part in ("encoder", "decoder")
        )
        self.inc = nn.Sequential(
            BasicBlock(in_channels, b),
            TransformerBlock(b, s["num_heads"][-5], s) if 0 in down else BasicBlock(b, b),
        )
        for level in range(1, 5):
            attended = level in down
            count, heads = (s["num_blocks"][level - 5], s["num_heads"][level - 5]) if attended else (0, None)
            setattr(self, f"down{level}", Down(b * 2 ** (level - 1), heads, count, s))
        for level in range(4):
            up_heads = s["num_heads"][level - 4] if level in up else None
            setattr(self, f"up{4 - level}", Up(b * 2**level, up_heads, s))
        self.outc = nn.Conv2d(b, num_classes, 1)
        self.aux_loss = s["aux_loss"]
        if self.aux_loss:
            self.out1, self.out2, self.out3 = (nn.Conv2d(b * n, num_classes, 1) for n in (8, 4, 2))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x0 = self.inc(x)
        x1 = self.down1(x0)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        u1 = self.up1(self.down4(x3), x3)
        u2 = self.up2(u1, x2)
        u3 = self.up3(u2, x1)
        main = self.outc(self.up4(u3, x0))
        if not self.aux_loss:
            return main
        aux = (self.out3(u3), self.out2(u2), self.out1(u1))
        size = x.shape[-2:]
        return (main, *(F.interpolate(a, size, mode="bilinear", align_corners=True) for a in aux))
